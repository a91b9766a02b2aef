import { findStep, type ModelSpec } from "../arch/index.js";
import { type ExpertStatistics, expertMerges, expertMethods, mergeGroups, mergeShares } from "../compress/index.js";
import { keptExperts } from "../compress/internal.js";
import { type JobOptions, UsageError } from "../core/index.js";
import { type Checkpoint, fingerprint, type LocalModelFiles, openCheckpoint, sha256Hex } from "../io/index.js";
import { claimOutput } from "../io/index.node.js";
import { readReference } from "../io/internal.js";
import type { DeviceId } from "../kernels/index.js";
import { cutExperts, type Merging, measureExperts, openModel } from "../pipeline/index.js";
import type { TokenizedText } from "../text/index.js";
import { writePlainCheckpoint } from "./plainCheckpoint.js";
import { watchSource } from "./source.js";
import { packageVersion } from "./version.js";

/** Which experts go, and what they are judged by. */
export interface PruneExpertsOptions extends JobOptions {
  /** One of `expertMethods`. */
  method: string;
  /** One of `expertMerges`: what goes is folded into what stays. Default: it is left out. */
  merge?: string;
  /** How many go in every layer. */
  remove: number;
  /** Text that the dense model is run on. */
  calibration: TokenizedText;
  /** Tokens of a window, and windows at most. */
  window: number;
  windows: number;
  device?: DeviceId;
  threads?: number;
  /** Replace the finished result of something else. */
  force?: boolean;
}

/** What became of one layer. */
export interface PrunedExpertsLayer {
  layer: number;
  /** Experts of the source that stayed, in their new order. */
  kept: readonly number[];
  /** Of every expert of the source. */
  scores: readonly number[];
  /** With `merge`: experts of the source that each of the new ones is made of, the one that stayed first. */
  groups?: readonly (readonly number[])[];
}

/** What came of it. */
export interface PrunedExpertsDirectory {
  output: string;
  method: string;
  merge?: string;
  /** Experts of a layer, before and after. */
  experts: { before: number; after: number };
  layers: readonly PrunedExpertsLayer[];
}

/**
 * Leaves out experts of every layer: the dense model is run on a text once, its experts are scored, and the best ones and the rows
 * of the router that choose them are written as a plain checkpoint, with a config.json to match, that any tool reads. It appears
 * whole or not at all.
 * @throws UsageError, BusyError, StorageError before the weights are read; what `openModel` and `measureExperts` throw
 */
export async function pruneExpertsToDirectory(
  source: LocalModelFiles,
  output: string,
  options: PruneExpertsOptions,
): Promise<PrunedExpertsDirectory> {
  const { method, merge, remove, calibration, window, windows, device, threads, force, signal, onProgress } = options;
  if (!Object.hasOwn(expertMethods, method)) {
    throw new UsageError(
      `there is no way ${method} to choose experts; there are ${Object.keys(expertMethods).join(", ")}`,
    );
  }
  if (merge !== undefined && !Object.hasOwn(expertMerges, merge)) {
    throw new UsageError(`experts are not merged by ${merge}, but by ${Object.keys(expertMerges).join(" or ")}`);
  }
  const { score, needsOutputs } = expertMethods[method];
  await using claimed = await claimOutput(output, { inputs: [source.directory], force });
  const checkpoint = await openCheckpoint(source);
  try {
    const owner = { command: "prune", job: await jobOf(checkpoint, options) };
    claimed.accept(owner);
    const checkSource = await watchSource(source);
    const weights = isExactInBf16(checkpoint) ? "bf16" : "f32";
    const layers: PrunedExpertsLayer[] = [];
    let before = 0;
    await claimed.build(owner, async (directory) => {
      using opened = await openModel(source, { weights, device, threads, signal, onProgress });
      const { spec } = opened.model.config;
      const statistics = await measureExperts(opened.model, calibration.tokens, {
        window,
        maxWindows: windows,
        outputs: needsOutputs,
        routers: merge === undefined ? undefined : await readRouters(checkpoint, spec),
        signal,
        onProgress,
      });
      const kept = statistics.map((measured, layer) => {
        if (measured === undefined) return undefined;
        const { router } = findStep(spec.blocks[layer], "mixture")!;
        before = router.map.rows;
        const scores = Array.from({ length: before }, (_, e) => score(measured, e));
        const stay = keptExperts(scores, remove, { perToken: router.perToken, groups: router.groups?.count });
        const groups = merge === undefined ? undefined : mergeGroups(stay, measured.logitProducts!);
        layers.push({ layer, kept: stay, scores, ...(groups && { groups }) });
        return stay;
      });
      const merging = merge === undefined ? undefined : mergingOf(layers, statistics, expertMerges[merge].aligns);
      const cut = cutExperts(checkpoint, spec, kept, merging);
      await writePlainCheckpoint(directory, source, checkpoint, cut, { signal, onProgress });
      await checkSource();
      signal?.throwIfAborted();
    });
    return { output, method, ...(merge && { merge }), experts: { before, after: before - remove }, layers };
  } finally {
    await checkpoint.close();
  }
}

/** The weights of the router of every layer that has one. */
async function readRouters(checkpoint: Checkpoint, { blocks }: ModelSpec): Promise<(Float32Array | undefined)[]> {
  const routers: (Float32Array | undefined)[] = [];
  for (const block of blocks) {
    const ref = findStep(block, "mixture")?.router.map.weight;
    routers.push(ref && (await readReference(checkpoint, ref)));
  }
  return routers;
}

/** Shares by the tokens that each expert got. */
function mergingOf(
  layers: readonly PrunedExpertsLayer[],
  statistics: readonly (ExpertStatistics | undefined)[],
  aligns: boolean,
): Merging {
  const groups: Merging["groups"][number][] = statistics.map(() => undefined);
  for (const { layer, groups: members } of layers) {
    const { counts } = statistics[layer]!;
    groups[layer] = members!.map((experts) => {
      const shares = mergeShares(experts.map((expert) => counts[expert]));
      return experts.map((expert, m) => ({ expert, share: shares[m] }));
    });
  }
  return { groups, aligns };
}

const isExactInBf16 = ({ tensors }: Checkpoint): boolean =>
  [...tensors.values()].every(({ dtype }) => dtype === "BF16");

/** SHA-256 over all that decides the result. */
async function jobOf(checkpoint: Checkpoint, options: PruneExpertsOptions): Promise<string> {
  const { method, merge, remove, window, windows, device, calibration } = options;
  const what = {
    version: packageVersion(),
    source: await fingerprint(checkpoint, options),
    text: calibration.sha256,
    how: [method, merge, remove, window, windows, device],
  };
  return sha256Hex(JSON.stringify(what));
}
