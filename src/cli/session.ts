import { basename } from "node:path";
import type { Variant } from "../eval/index.js";
import { type LocalModelFiles, type ModelFiles, readAdapter } from "../io/index.js";
import { directoryFiles, readText, resolveModel } from "../io/index.node.js";
import { openExpertRanks } from "../jobs/index.js";
import {
  checkSound,
  type ExpertRanks,
  type Model,
  type OffloadOptions,
  type PassThresholds,
  withAdapter,
} from "../model/index.js";
import { type OpenedModel, openModel, thresholdsAt } from "../pipeline/index.js";
import { type Exits, parseExits } from "../runtime/index.js";
import { type TokenizedText, type Tokenizer, tokenizeText } from "../text/index.js";
import type { Context } from "./command.js";
import { bytes } from "./format.js";
import type {
  AdapterOption,
  AttentionOptions,
  ExitsOption,
  ExpertRanksOption,
  MachineOptions,
  ResidentOption,
  SparsityOption,
  WeightsOption,
} from "./options.js";
import { openTokenizer } from "./tokenizer.js";

/** The word that stands for the first model as it is without any of what makes it sparse as it runs, where models are compared. */
export const denseKeyword = "dense";

/** A model named on the command line, loaded and ready. */
export interface Session extends OpenedModel {
  readonly files: LocalModelFiles;
}

/** @param argument a model as it is named on the command line, or its files where they were looked at before */
export async function openSession(
  context: Context,
  argument: string | LocalModelFiles,
  options: MachineOptions & WeightsOption & ExpertRanksOption & AdapterOption & ResidentOption,
): Promise<Session> {
  const { signal, onProgress } = context;
  const files = typeof argument === "string" ? await resolveModel(argument, { signal, onProgress }) : argument;
  const { weights, device, threads, structure } = options;
  const { expertRanks: spread } = options;
  const expertRanks = spread && openExpertRanks(files, { ...spread, weights, structure, signal });
  let opened: OpenedModel | undefined;
  const adapted: Model[] = [];
  const dispose = () => {
    for (const model of adapted.toReversed()) model[Symbol.dispose]();
    opened?.[Symbol.dispose]();
    expertRanks?.[Symbol.dispose]();
  };
  try {
    const offload = offloadOf(options);
    opened = await openModel(files, { weights, device, threads, structure, expertRanks, offload, signal, onProgress });
    checkSound(opened.model);
    for (const directory of options.adapter ?? []) {
      const adapter = await readAdapter(directoryFiles(directory));
      adapted.push(await withAdapter(adapted.at(-1) ?? opened.model, adapter));
    }
  } catch (error) {
    dispose();
    throw error;
  }
  for (const { file, field, problem } of opened.warnings) context.warn(`${file}: ${field}: ${problem}`);
  return {
    ...opened,
    model: adapted.at(-1) ?? opened.model,
    files,
    [Symbol.dispose]() {
      if (expertRanks !== undefined) context.note(describeTraffic(expertRanks));
      dispose();
    },
  };
}

/** How a model is held that is larger than memory; undefined for one that is loaded. */
export function offloadOf({ residentBytes, predict }: ResidentOption): OffloadOptions | undefined {
  if (residentBytes === undefined && predict === undefined) return undefined;
  return { residentBytes, ...(predict !== undefined && { predict: predict === true ? 0 : predict }) };
}

/** What went between the ranks while the model was open. */
function describeTraffic(ranks: ExpertRanks): string {
  const { dispatched, combined, overhead, messages } = ranks.takeTraffic();
  return (
    `between ${ranks.count} expert ranks: ${bytes(dispatched)} of rows to the experts, ${bytes(combined)} of their outputs ` +
    `back, ${bytes(overhead)} of headers, in ${messages} messages`
  );
}

/** The rule of the command line with what was trained for this model, or its own. */
export const exitsOf = ({ artifact, exits }: OpenedModel, asked: Exits | undefined): Exits | undefined =>
  asked === undefined ? exits : parseExits(asked.text, artifact?.exits);

/** What is skipped of the inputs: as the command line says, or as the model was made. */
export const thresholdsFor = (
  { model: { config, thresholds }, artifact }: Pick<Session, "model" | "artifact">,
  { sparsity }: SparsityOption,
): PassThresholds | undefined => {
  if (sparsity === undefined) return thresholds;
  return "share" in sparsity ? thresholdsAt(artifact, config.spec, sparsity.share) : sparsity.of(config.layers);
};

/** How models that are measured against each other are opened, and how they run. */
export interface ComparisonOptions
  extends MachineOptions,
    ExpertRanksOption,
    ResidentOption,
    WeightsOption,
    AttentionOptions,
    SparsityOption,
    ExitsOption {}

/** Several models to be measured against each other. */
export interface Comparison extends Disposable {
  /** One for each argument, in their order. */
  readonly variants: readonly Variant[];
  readonly first: Session;
  /** More than one model is in memory. */
  readonly severalModels: boolean;
}

/**
 * Loads every argument on a backend of its own, each with the pattern, policy and exits of the options, or else its own; `dense`
 * is the first one again, without any of them.
 */
export async function openComparison(
  context: Context,
  args: readonly (string | LocalModelFiles)[],
  options: ComparisonOptions & AdapterOption,
): Promise<Comparison> {
  const sessions: Session[] = [];
  const dispose = () => {
    for (const session of sessions) session[Symbol.dispose]();
  };
  try {
    const variants: Variant[] = [];
    for (const argument of args) {
      const [first] = sessions;
      if (argument === denseKeyword && first !== undefined) {
        variants.push({ name: denseKeyword, model: first.model, thresholds: "dense" });
        continue;
      }
      // Adapters and the bound of memory are those of the first model.
      const session = await openSession(
        context,
        argument,
        first === undefined ? options : { ...options, adapter: [], residentBytes: undefined, predict: undefined },
      );
      sessions.push(session);
      const { model } = session;
      const { attention = session.attention, kv = session.kv } = options;
      const exits = exitsOf(session, options.exits);
      variants.push({
        name: basename(session.location),
        model,
        thresholds: thresholdsFor(session, options),
        attention,
        kv,
        exits,
      });
    }
    return { variants, first: sessions[0], severalModels: sessions.length > 1, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** A text file as tokens of a model. */
export async function readTokens(
  context: Pick<Context, "signal" | "onProgress" | "warn">,
  files: ModelFiles,
  path: string,
  options: { maxTokens?: number } = {},
): Promise<TokenizedText & { tokenizer: Tokenizer }> {
  const text = await readText(path);
  const tokenizer = await openTokenizer(context, files);
  const { signal, onProgress } = context;
  return { ...(await tokenizeText(tokenizer, text, { ...options, name: path, signal, onProgress })), tokenizer };
}
