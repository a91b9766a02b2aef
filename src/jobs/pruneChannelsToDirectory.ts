import { type AnyOptions, gradientStatistics, type PruneMethod, pruneMethods } from "../compress/index.js";
import { unitsKept } from "../compress/internal.js";
import { type JobOptions, UsageError } from "../core/index.js";
import { parseSchema } from "../core/internal.js";
import { type Checkpoint, fingerprint, type LocalModelFiles, openCheckpoint, sha256Hex } from "../io/index.js";
import { claimOutput } from "../io/index.node.js";
import { cutChannels, narrowModel } from "../pipeline/internal.js";
import type { TokenizedText } from "../text/index.js";
import { gradientSource, modelParameters, readWeights, trainableConfig } from "../train/index.js";
import { type ChannelChoice, chooseChannels } from "./channelSelection.js";
import { writePlainCheckpoint } from "./plainCheckpoint.js";
import { watchSource } from "./source.js";
import { packageVersion } from "./version.js";

/** How many channels of the residual stream go, and what they are judged by. */
export interface PruneChannelsOptions extends JobOptions {
  /** One of `pruneMethods` that scores weights from themselves or from gradients. Default "llm-pruner". */
  method?: string;
  /** Of the method; default: its own. */
  methodOptions?: AnyOptions;
  /** Share of the channels that go, 0 to 1. */
  sparsity: number;
  /** How many stay is rounded up to a multiple of this, itself a multiple of 4. Default 32. */
  multipleOf?: number;
  /** The share grows linearly over so many steps, and importances are computed anew before each. Default 1. */
  steps?: number;
  /** Text whose loss is differentiated; for methods that read gradients. */
  calibration?: TokenizedText;
  /** Tokens of a window, and windows. Default 64 and 10. */
  window?: number;
  windows?: number;
  /** Replace the finished result of something else. */
  force?: boolean;
}

/** What came of it. */
export interface PrunedChannelsDirectory {
  output: string;
  method: string;
  /** Channels of the residual stream, before and after. */
  channels: { before: number; after: number };
  /** Channels of the source that stay, ascending. */
  kept: readonly number[];
  /** By channel of the source: what it counted when it was last looked at. */
  scores: readonly number[];
}

/**
 * Leaves out channels of the residual stream, through the whole model: columns of the embedding and the head, entries of every norm,
 * columns of the matrices that read the stream and rows of those that add to it (channel-wise in LLM-Pruner, Ma, Fang, Wang 2023,
 * arXiv:2305.11627). The result is a plain, narrower checkpoint with a config.json to match, that any tool reads. It appears whole
 * or not at all. All weights are held as f32, and those of them that gradients are of twice more.
 * @throws UsageError, BusyError, StorageError, FormatError for a family that cannot be narrower
 */
export async function pruneChannelsToDirectory(
  source: LocalModelFiles,
  output: string,
  options: PruneChannelsOptions,
): Promise<PrunedChannelsDirectory> {
  const { method: id = "llm-pruner", sparsity, force, signal, onProgress } = options;
  const choice = await choiceOf(id, options);
  await using claimed = await claimOutput(output, { inputs: [source.directory], force });
  const checkpoint = await openCheckpoint(source);
  try {
    const { config, artifact, location } = checkpoint;
    const { spec, headDim } = await trainableConfig(checkpoint);
    const narrowTo = (width: number) =>
      narrowModel(config, spec, headDim, width, `${location}/config.json`, artifact?.blocks);
    const width = unitsKept(spec.hiddenSize, sparsity, choice.multipleOf);
    if (width === spec.hiddenSize) {
      throw new UsageError(
        `${sparsity} of ${width} channels is none that goes, what stays rounded up to a multiple of ${choice.multipleOf} (\`multipleOf\`)`,
      );
    }
    narrowTo(width);
    const owner = { command: "prune", job: await jobOf(checkpoint, id, choice, options) };
    claimed.accept(owner);
    const checkSource = await watchSource(source);
    let chosen = { kept: [] as number[], scores: [] as number[] };
    await claimed.build(owner, async (directory) => {
      const job = { signal, onProgress };
      const weights = await readWeights(checkpoint, modelParameters(spec), job);
      chosen = await chooseChannels(spec, weights, (width) => narrowTo(width).spec, choice, job);
      weights.clear();
      const narrow = narrowTo(chosen.kept.length);
      const cut = { config: narrow.config, tensors: cutChannels(checkpoint, spec, narrow, chosen.kept) };
      await writePlainCheckpoint(directory, source, checkpoint, cut, job);
      await checkSource();
      signal?.throwIfAborted();
    });
    return { output, method: id, channels: { before: spec.hiddenSize, after: chosen.kept.length }, ...chosen };
  } finally {
    await checkpoint.close();
  }
}

/** @throws UsageError */
async function choiceOf(id: string, options: PruneChannelsOptions): Promise<ChannelChoice> {
  const { sparsity, multipleOf = 32, steps = 1, calibration, window = 64, windows = 10 } = options;
  const { needs, ...judge } = await methodOf(id, options.methodOptions);
  if (!(sparsity > 0 && sparsity < 1)) throw new UsageError(`${sparsity} of the channels: more than 0, less than 1`);
  if (!(Number.isInteger(multipleOf) && multipleOf > 0 && multipleOf % 4 === 0))
    throw new UsageError(`a multiple of ${multipleOf} channels cannot be run: give a multiple of 4`);
  if (!(Number.isInteger(steps) && steps >= 1 && steps <= 1024)) throw new UsageError(`${steps} steps: 1 to 1024`);
  const wanted = gradientStatistics.filter((statistic) => needs.includes(statistic));
  const chosen = { ...judge, sparsity, multipleOf, steps, wanted };
  if (wanted.length === 0) return chosen;
  if (calibration === undefined)
    throw new UsageError(`${id} needs a text whose loss is differentiated (\`calibration\`)`);
  const { tokens, name = "the calibration text" } = calibration;
  if (tokens.length < windows * window) {
    throw new UsageError(
      `${windows} windows of ${window} tokens are ${windows * window}, and ${name} has ${tokens.length}: give a longer text or fewer windows (\`windows\`)`,
    );
  }
  return { ...chosen, windows: { tokens: tokens.subarray(0, windows * window), window } };
}

/** A method that needs no inputs of matrices: a channel enters most of them. */
async function methodOf(
  id: string,
  given: AnyOptions = {},
): Promise<{ method: PruneMethod; options: AnyOptions; needs: readonly string[] }> {
  if (!Object.hasOwn(pruneMethods, id))
    throw new UsageError(`there is no method ${id}; there are ${Object.keys(pruneMethods).join(", ")}`);
  const { method } = await pruneMethods[id]();
  const parsed = parseSchema(method.options, given);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(({ path, message }) => [...path, message].join(": "));
    throw new UsageError(`options of ${id}: ${problems.join("; ")}`);
  }
  const needs = method.needs(parsed.data);
  const other = needs.find((statistic) => !gradientStatistics.some((known) => known === statistic));
  if (other !== undefined || (method.score === undefined && method.unitScores === undefined)) {
    throw new UsageError(
      `${id} judges weights by what enters their matrix, and a channel is in all of them; take llm-pruner or magnitude`,
    );
  }
  return { method, options: parsed.data, needs };
}

/** SHA-256 over all that decides the result. */
async function jobOf(
  checkpoint: Checkpoint,
  id: string,
  { options, sparsity, multipleOf, steps, windows }: ChannelChoice,
  given: PruneChannelsOptions,
): Promise<string> {
  const what = {
    version: packageVersion(),
    source: await fingerprint(checkpoint, given),
    how: ["channels", id, options, sparsity, multipleOf, steps],
    text: windows && [given.calibration!.sha256, windows.window, windows.tokens.length, gradientSource().arithmetic],
  };
  return sha256Hex(JSON.stringify(what));
}
