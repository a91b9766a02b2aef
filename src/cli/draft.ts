import { Option } from "commander";
import { RarefyError } from "../core/index.js";
import { type Draft, layersDraft, lookupDraft, modelDraft } from "../runtime/index.js";
import { loadTokenizer, type Tokenizer } from "../text/index.js";
import type { Context } from "./command.js";
import { integer } from "./numbers.js";
import type { MachineOptions, WeightsOption } from "./options.js";
import { openSession } from "./session.js";

export interface DraftOptions {
  draft?: string;
  draftTokens?: number;
}

export const draftOptions = () => [
  new Option(
    "--draft <model>",
    "let a smaller model of the same vocabulary propose tokens, which the model verifies several at a time; or lookup (what " +
      "followed the same words before), or layers=N (its own first N layers). The text is as if without",
  ),
  new Option(
    "--draft-tokens <n>",
    "tokens proposed at once (default: as many as pay by the times measured; 4 with --seed)",
  ).argParser(integer({ min: 1, max: 16 })),
];

/**
 * The draft that an option names, and what it holds.
 * @throws RarefyError for a model whose vocabulary is another
 */
export async function openDraft(
  context: Context,
  { draft: name, ...options }: DraftOptions & MachineOptions & WeightsOption,
  tokenizer: Tokenizer,
): Promise<Disposable & { draft: Draft | undefined }> {
  const nothing = { [Symbol.dispose]: () => {} };
  if (name === undefined) return { draft: undefined, ...nothing };
  if (name === "lookup") return { draft: lookupDraft(), ...nothing };
  const layers = /^layers=(\d{1,9})$/.exec(name);
  if (layers !== null) return { draft: layersDraft(Number(layers[1])), ...nothing };
  // No more of the command's options: an adapter and ranks are the model's own.
  const { weights, device, threads, structure } = options;
  const session = await openSession(context, name, { weights, device, threads, structure });
  try {
    const own = await loadTokenizer(session.files);
    const most = Math.max(own.vocabSize, tokenizer.vocabSize);
    for (let id = 0; id < most; id++) {
      if (own.tokenOf(id) === tokenizer.tokenOf(id)) continue;
      const [ours, theirs] = [tokenizer, own].map((of) => JSON.stringify(of.tokenOf(id)) ?? "nothing");
      throw new RarefyError(
        `${name} cannot draft: its token ${id} is ${theirs}, and that of the model ${ours}; take one of the same vocabulary`,
      );
    }
    return { draft: modelDraft(session.model, session.location), [Symbol.dispose]: () => session[Symbol.dispose]() };
  } catch (error) {
    session[Symbol.dispose]();
    throw error;
  }
}
