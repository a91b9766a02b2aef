import { costsOf } from "../arch/index.js";
import {
  type AllocationId,
  type AllocationRow,
  allocationEvaluations,
  blockSparsity,
  type ThresholdEstimatorId,
} from "../compress/index.js";
import { breathe, type JobOptions, Random, Stage, UsageError } from "../core/index.js";
import type { ActivationSparsity } from "../io/index.js";
import type { KvCache } from "../kernels/index.js";
import { checkSound, firstNonFiniteOf, type Model } from "../model/index.js";
import { nonFiniteError } from "../model/internal.js";
import type { TokenizedText } from "../text/index.js";
import { activationMethods, type MethodId } from "./activationMethods.js";
import { BlockProbe, probeRows } from "./blockProbe.js";
import { expectedZeros } from "./expectedBytes.js";
import { LayerHistograms, type SiteStatistics } from "./layerHistograms.js";

/** What to aim at, and how much text is looked at. */
export interface CalibrationOptions extends JobOptions {
  /** Requested shares of zeros, each in [0, 1): one record for each, from one pass over the text. */
  sparsities: readonly number[];
  /**
   * "teal" (default) thresholds the input of every linear map (arXiv 2408.14690); "cats" the activated gate, which leaves
   * zeros in front of the MLP's last map alone (arXiv 2404.08763).
   */
  method?: MethodId;
  /** Default "absQuantile". */
  estimator?: ThresholdEstimatorId;
  /** How a block's share is divided among its linear maps. Default "uniform", the only one for CATS. */
  allocation?: AllocationId;
  /** Which part of a prompt will run sparse: written to the records, and what greedy candidates are judged on. Default "dense". */
  prefill?: ActivationSparsity["prefill"];
  /** Tokens of a calibration window. Default 512. */
  window?: number;
  /** Windows from the start of the text; fewer where it ends. Default 32. */
  calibrationWindows?: number;
  /** Greedy: rise of a linear map with hiddenSize² weights in one move. Default 0.05. */
  greedyBase?: number;
  /**
   * Greedy: tokens that candidates are judged on: whole windows, or the beginning of one for fewer than `window`. Every
   * move runs half of them (those that `prefill` lets be sparse) through a block once for each of its maps, so time is
   * proportional to this. Ranking candidates takes far fewer tokens than placing thresholds, because all are judged on the
   * same ones. Default 512.
   */
  greedyTokens?: number;
  /** Draws the windows for the greedy allocation. Default 0. */
  seed?: number;
}

/** One of each for each requested sparsity, in the order asked. */
export interface CalibratedSparsities {
  /** What `rarefy.json` stores and `toThresholds` takes. */
  records: ActivationSparsity[];
  /** Share of the blocks' weights whose inputs each record's thresholds drop on the calibration text. */
  realisedSparsities: number[];
}

/** What calibration found, and what it was found from. */
export interface Calibration extends CalibratedSparsities {
  /** With greedy allocation: what the uniform one gives, from the same counts. */
  uniform?: CalibratedSparsities;
  /** Per layer: what was seen at each watched place, by the id of its site. */
  sites: Record<string, SiteStatistics>[];
  /** TEAL, per layer: the rows that records were chosen from; with greedy allocation, the table of its moves. */
  allocationRows: AllocationRow[][];
}

/**
 * Finds thresholds for activation sparsity. Runs the dense model block by block over windows of text, counts the
 * activations of one layer at a time, and reads the thresholds off the counts; so what is held beside the model is the
 * residual stream of every window, f32 [window, hiddenSize], and one layer's histograms. Works with every weight format
 * and backend: the thresholds are those of the model as loaded. The same input gives the same records.
 *
 * @throws UsageError for options out of range, a text shorter than one window, activations that are not finite
 */
export async function calibrateActivationSparsity(
  model: Model,
  text: TokenizedText,
  options: CalibrationOptions,
): Promise<Calibration> {
  checkSound(model);
  const plan = planCalibration(model, text, options);
  const { method, windows, window, greedyWindows, signal } = plan;
  const { sites: counted, calibrateLayer } = activationMethods[method];
  const { layers, hiddenSize, spec } = model.config;
  const rowsPerCall = BlockProbe.rowsPerCall(greedyWindows.length, plan.greedyRows);
  const greedyTokens = plan.greedyEvaluations.map((evaluations) => evaluations * rowsPerCall);
  const total = greedyTokens.reduce((sum, tokens) => sum + tokens, layers * windows * window);
  const stage = new Stage("calibrate", total, "tokens", options.onProgress);
  const records = plan.emptyRecords(plan.allocation);
  const uniform = plan.allocation === "uniform" ? undefined : plan.emptyRecords("uniform");
  const sites: Calibration["sites"] = [];
  const allocationRows: Calibration["allocationRows"] = [];

  using cache = model.createCache(window);
  const streams = await embedWindows(model, text.tokens, windows, window);
  for (let layer = 0; layer < layers; layer++) {
    const detail = `layer ${layer + 1} of ${layers}`;
    const histograms = new LayerHistograms(model, layer, counted(spec.blocks[layer]));
    const greedyInputs = greedyWindows.map((w) => streams[w].subarray(0, plan.greedyRows.tokens * hiddenSize));
    for (let w = 0; w < windows; w++) {
      await breathe(signal);
      streams[w] = await runDenseBlock(model, layer, streams[w], cache, histograms);
      stage.advance(window, detail);
    }
    sites.push(histograms.statistics());

    let greedyTokensDone = 0;
    const calibrated = await calibrateLayer({
      model,
      layer,
      histograms,
      greedyInputs,
      ...plan,
      onRows(rows) {
        greedyTokensDone += rows;
        stage.advance(rows, detail);
      },
    });
    // A share that is cut at 1 changes the number of moves from the planned one.
    if (greedyTokensDone !== greedyTokens[layer]) stage.advance(greedyTokens[layer] - greedyTokensDone, detail);
    for (const [level, record] of calibrated.records.entries()) records[level].layers.push(record);
    for (const [level, record] of calibrated.uniform?.entries() ?? []) uniform![level].layers.push(record);
    if (calibrated.rows !== undefined) allocationRows.push(calibrated.rows);
  }
  const withShares = (records: ActivationSparsity[]): CalibratedSparsities => ({
    records,
    realisedSparsities: records.map((record) => realisedSparsity(model, record)),
  });
  return { ...withShares(records), ...(uniform && { uniform: withShares(uniform) }), sites, allocationRows };
}

function planCalibration(model: Model, text: TokenizedText, options: CalibrationOptions) {
  const { sparsities, method = "teal", estimator = "absQuantile", allocation = "uniform", prefill = "dense" } = options;
  const { window = 512, calibrationWindows = 32, greedyBase = 0.05, greedyTokens = 512, seed = 0, signal } = options;
  const windows = Math.min(calibrationWindows, Math.floor(text.tokens.length / window));
  if (!(Number.isSafeInteger(window) && Number.isSafeInteger(windows) && window >= 4 && windows >= 1)) {
    throw new UsageError(
      `${text.name ?? "the calibration text"} has ${text.tokens.length} tokens, and ${calibrationWindows} windows of ${window} are asked for: ` +
        "a window has at least 4 tokens (`window`), and the text at least one window",
    );
  }
  const outside = sparsities.find((sparsity) => !(sparsity >= 0 && sparsity < 1));
  if (outside !== undefined)
    throw new UsageError(`sparsity ${outside}; it is a share of zeros, at least 0 and below 1`);
  if (!(greedyBase > 0)) throw new UsageError(`greedy base ${greedyBase}; it must be above 0`);
  if (!(Number.isSafeInteger(greedyTokens) && greedyTokens >= 4)) {
    throw new UsageError(`${greedyTokens} greedy tokens; at least 4 are needed`);
  }
  const greedy = allocation === "greedy";
  if (greedy && method === "cats")
    throw new UsageError("CATS has one threshold a layer, so there is nothing to allocate");

  const { hiddenSize, spec } = model.config;
  const base = greedyBase * hiddenSize ** 2;
  const greedyWindow = Math.min(window, greedyTokens);
  const greedyWindowCount = greedy ? Math.min(windows, Math.round(greedyTokens / greedyWindow)) : 0;
  return {
    method,
    windows,
    window,
    levels: sparsities,
    estimator,
    allocation,
    base,
    greedyEvaluations: spec.blocks.map((block) =>
      allocationEvaluations(allocation, { costs: costsOf(block), levels: sparsities, base }),
    ),
    greedyRows: probeRows(greedyWindow, prefill),
    greedyWindows: draw(greedyWindowCount, windows, new Random(seed)),
    signal,
    emptyRecords: (allocation: AllocationId) =>
      sparsities.map(
        (sparsity): ActivationSparsity => ({
          method,
          estimator,
          allocation,
          sparsity,
          prefill,
          layers: [],
          calibration: { textSha256: text.sha256, windows, window, seed, ...(text.windowsBegin && { bos: true }) },
        }),
      ),
  };
}

/** `count` different integers below `below`, ascending. */
function draw(count: number, below: number, random: Random): number[] {
  const all = Array.from({ length: below }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const other = i + random.integer(below - i);
    [all[i], all[other]] = [all[other], all[i]];
  }
  return all.slice(0, count).toSorted((a, b) => a - b);
}

/** f32 [window, hiddenSize] each. */
async function embedWindows(model: Model, tokens: Uint32Array, windows: number, window: number) {
  const streams: Float32Array[] = [];
  for (let w = 0; w < windows; w++) {
    const x = model.embed(tokens.subarray(w * window, (w + 1) * window));
    try {
      streams.push(await model.backend.read(x));
    } finally {
      model.backend.release(x);
    }
  }
  return streams;
}

/** What leaves the block, f32 [tokens, hiddenSize] like what enters it. */
async function runDenseBlock(
  model: Model,
  layer: number,
  input: Float32Array,
  cache: KvCache,
  histograms: LayerHistograms,
): Promise<Float32Array> {
  const { backend, config } = model;
  const x = backend.allocate(input.length / config.hiddenSize, config.hiddenSize);
  try {
    backend.write(x, input);
    await model.block(layer, x, cache, 0, { tap: histograms.tap, thresholds: "dense" });
    const output = await backend.read(x);
    const at = firstNonFiniteOf(output);
    if (at >= 0) throw nonFiniteError(`in layer ${layer}, what its block adds`, output[at]);
    return output;
  } finally {
    backend.release(x);
  }
}

/** Mean over the layers, each weighted by what its maps cost. */
function realisedSparsity(model: Model, { layers }: ActivationSparsity): number {
  const { blocks } = model.config.spec;
  const shares = blocks.map((block, layer) => blockSparsity(costsOf(block), expectedZeros(block, layers[layer])));
  return shares.reduce((sum, share) => sum + share, 0) / shares.length;
}
