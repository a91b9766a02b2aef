import { InputStatistics, type Layer, type StatisticId, StatisticsAccumulator } from "../compress/index.js";
import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";
import { type BackendOptions, openBackend } from "../kernels/index.js";
import { describeDecoder, loadModel, type Projection, type TapSite, tapSites } from "../model/index.js";
import { gatherRows, type ReplacedTensor, replaceTensors, singleBlock } from "./checkpointView.js";

/** One linear layer of the block in hand. */
export interface BlockLayer extends Layer {
  /** Name of the tensor in the checkpoint. */
  name: string;
  projection: Projection;
}

export interface BlockwiseOptions extends JobOptions, BackendOptions {
  /** Calibration tokens, from the start: `windows` times `window` of them. */
  tokens: Uint32Array;
  windows: number;
  window: number;
  /** What is to be measured at the inputs of layers; empty: nothing, and no tokens are run. */
  statistics: readonly StatisticId[];
  /** Default: the fastest that this machine can run. */
  backend?: string;
  /** @returns f32 [rows, cols], or undefined to leave the layer as it is */
  compress(
    layer: BlockLayer,
    statistics: InputStatistics,
  ): Float32Array | undefined | Promise<Float32Array | undefined>;
}

export interface CompressedBlock {
  layer: number;
  /** The layers that changed, by tensor name. */
  weights: Map<string, ReplacedTensor>;
  /** Running tokens through the block, adding up statistics, compressing. */
  elapsedMs: { forward: number; statistics: number; compress: number };
}

/**
 * Compresses a decoder block by block. Every block sees the outputs of the compressed blocks before it: the windows run
 * through the block with its own weights while statistics are taken at the inputs of its layers, the layers are
 * compressed, and the windows run again to make the inputs of the next block. Held at a time: the residual stream of all
 * windows, f32 [windows * window, hiddenSize], one block, and its statistics. The same input gives the same weights.
 *
 * @throws UsageError when there are too few tokens
 */
export async function* compressBlockwise(
  checkpoint: Checkpoint,
  options: BlockwiseOptions,
): AsyncGenerator<CompressedBlock> {
  const { tokens, windows, window, signal } = options;
  const { config, layout } = await describeDecoder(checkpoint);
  const calibrated = options.statistics.length > 0;
  if (calibrated && tokens.length < windows * window) {
    throw new UsageError(`${windows} windows of ${window} tokens from a text of ${tokens.length}`);
  }
  const stage = new Stage("compress", config.layers, "blocks", options.onProgress);
  const run = calibrated ? tokens.subarray(0, windows * window) : new Uint32Array();
  const streams = await gatherRows(checkpoint, layout.embedding.name, run);

  for (let layer = 0; layer < config.layers; layer++) {
    await breathe(signal);
    const elapsedMs = { forward: 0, statistics: 0, compress: 0 };
    const block = singleBlock(checkpoint, layer, config.hiddenSize, config.slidingWindows[layer] !== undefined);
    const statistics = new Map<TapSite, InputStatistics>();
    if (calibrated) {
      const accumulators = new Map<TapSite, StatisticsAccumulator>();
      await runBlock(block, streams, config.hiddenSize, options, elapsedMs, async (site, values) => {
        const startMs = performance.now();
        let accumulator = accumulators.get(site);
        if (accumulator === undefined) {
          accumulator = new StatisticsAccumulator(values.length / window, options.statistics);
          accumulators.set(site, accumulator);
        }
        accumulator.add(values);
        elapsedMs.statistics += performance.now() - startMs;
      });
      for (const [site, accumulator] of accumulators) statistics.set(site, accumulator.finish());
    }

    const weights = new Map<string, ReplacedTensor>();
    for (const [site, projections] of Object.entries(tapSites) as [TapSite, readonly Projection[]][]) {
      for (const projection of projections) {
        await breathe(signal);
        const name = [...checkpoint.tensors.keys()].find(
          (n) => n.startsWith(`model.layers.${layer}.`) && n.endsWith(`.${projection}.weight`),
        )!;
        const [rows, cols] = checkpoint.tensors.get(name)!.shape;
        const weight = await checkpoint.readFloat32(name);
        const startMs = performance.now();
        const measured = statistics.get(site) ?? new InputStatistics(cols, 0);
        const changed = await options.compress({ name, projection, weight, rows, cols }, measured);
        elapsedMs.compress += performance.now() - startMs;
        if (changed !== undefined) weights.set(name, { shape: [rows, cols], values: changed });
      }
      statistics.delete(site);
    }

    if (calibrated && layer + 1 < config.layers) {
      const renamed = Array.from(
        weights,
        ([name, w]) => [name.replace(/^model\.layers\.\d+/, "model.layers.0"), w] as const,
      );
      await runBlock(replaceTensors(block, new Map(renamed)), streams, config.hiddenSize, options, elapsedMs);
    }
    stage.advance(1, `block ${layer + 1} of ${config.layers}`);
    yield { layer, weights, elapsedMs };
  }
}

/** Runs all windows through a block. With `watch` the streams stay what they are, otherwise they become the outputs. */
async function runBlock(
  block: Checkpoint,
  streams: Float32Array,
  hiddenSize: number,
  options: BlockwiseOptions,
  elapsedMs: CompressedBlock["elapsedMs"],
  watch?: (site: TapSite, values: Float32Array) => Promise<void>,
): Promise<void> {
  const startMs = performance.now();
  const measuredMs = elapsedMs.statistics;
  const { window, threads, signal } = options;
  using backend = await openBackend(options.backend, threads === undefined ? {} : { threads });
  using model = await loadModel(block, backend, { weights: "f32", signal });
  using cache = model.createCache(window);
  const x = backend.allocate(window, hiddenSize);
  const sites = (Object.keys(tapSites) as TapSite[]).filter((site) => tapSites[site].length > 0);
  const tap = watch && {
    sites,
    onActivation: async (_layer: number, site: TapSite, activation: Parameters<typeof backend.read>[0]) =>
      watch(site, await backend.read(activation)),
  };
  for (let start = 0; start < streams.length; start += window * hiddenSize) {
    await breathe(signal);
    const stream = streams.subarray(start, start + window * hiddenSize);
    backend.write(x, stream);
    await model.block(0, x, cache, 0, { tap });
    if (watch === undefined) stream.set(await backend.read(x));
  }
  elapsedMs.forward += performance.now() - startMs - (elapsedMs.statistics - measuredMs);
}
