import type { ModelSpec } from "../arch/index.js";
import {
  type AnyOptions,
  type CoupledMember,
  type GradientStatistic,
  InputStatistics,
  type PruneMethod,
} from "../compress/index.js";
import { chooseUnits, unitScores, unitsKept } from "../compress/internal.js";
import { breathe, type JobOptions, NonFiniteError, Stage } from "../core/index.js";
import type { TextWindows } from "../pipeline/index.js";
import { streamAxes } from "../pipeline/internal.js";
import { decoderObjective, type FloatArray, type ModelParameter, modelParameters } from "../train/index.js";

/** How channels are chosen. */
export interface ChannelChoice {
  method: PruneMethod;
  /** Complete options of the method. */
  options: AnyOptions;
  /** Share of the channels that go. */
  sparsity: number;
  /** How many stay is rounded up to a multiple of this. */
  multipleOf: number;
  /** The share grows linearly over so many steps, importances computed anew each time. */
  steps: number;
  /** Which gradients the method reads; none need no text. */
  wanted: readonly GradientStatistic[];
  windows?: TextWindows;
}

/** Channels of the residual stream that stay, and what each counted when it was last looked at. */
export interface ChosenChannels {
  /** Ascending. */
  kept: number[];
  /** f64 by channel of the source: the score of the step that removed it, or of the last one. */
  scores: number[];
}

/** What is known of the gradients of all weights: f32 by parameter. */
type Gradients = ReadonlyMap<GradientStatistic, ReadonlyMap<string, Float32Array>>;

/**
 * Chooses channels of the residual stream. A channel is a group of its own through the whole model: a column of the embedding and the
 * head, an entry of every norm, a column of each matrix that reads the stream and a row of each that adds to it.
 * @param weights f32 by parameter, of `modelParameters(spec)`; they are not changed
 * @param narrowTo the description with fewer channels
 */
export async function chooseChannels(
  spec: ModelSpec,
  weights: ReadonlyMap<string, FloatArray>,
  narrowTo: (width: number) => ModelSpec,
  choice: ChannelChoice,
  job: JobOptions = {},
): Promise<ChosenChannels> {
  const { sparsity, multipleOf, steps } = choice;
  const scores = new Array<number>(spec.hiddenSize).fill(0);
  let kept = Array.from({ length: spec.hiddenSize }, (_, channel) => channel);
  let [current, values] = [spec, weights];
  for (let step = 1; step <= steps; step++) {
    const width = unitsKept(spec.hiddenSize, (sparsity * step) / steps, multipleOf);
    // A step that rounding leaves nothing to do is none; one always looks, so that there are scores.
    if (width === kept.length && step < steps) continue;
    const found = await channelScores(current, values, narrowTo(Math.max(1, kept.length - 1)), choice, job);
    for (const [i, score] of found.entries()) scores[kept[i]] = score;
    const stay = chooseUnits(found, (kept.length - width) / kept.length);
    if (step < steps) {
      const narrow = narrowTo(stay.length);
      values = cutWeights(modelParameters(current), modelParameters(narrow), values, stay);
      current = narrow;
    }
    kept = stay.map((i) => kept[i]);
  }
  return { kept, scores };
}

/** f32 [hiddenSize] */
async function channelScores(
  spec: ModelSpec,
  weights: ReadonlyMap<string, FloatArray>,
  narrow: ModelSpec,
  { method, options, wanted, windows }: ChannelChoice,
  job: JobOptions,
): Promise<Float32Array> {
  const gradients = wanted.length === 0 ? undefined : await gradientsOf(spec, weights, wanted, windows!, job);
  const members: CoupledMember[] = [];
  const statistics: InputStatistics[] = [];
  const narrowed = modelParameters(narrow);
  for (const [p, { name, shape }] of modelParameters(spec).entries()) {
    for (const axis of streamAxes(shape, narrowed[p].shape)) {
      // A vector is a matrix of one row.
      const [rows, cols] = shape.length === 1 ? [1, shape[0]] : shape;
      const onRows = shape.length > 1 && axis === 0;
      const layer = { weight: weights.get(name) as Float32Array, rows, cols };
      members.push({ layer, axis: onRows ? "rows" : "columns" });
      const known = Array.from(gradients ?? [], ([id, of]) => [id, of.get(name)]);
      statistics.push(new InputStatistics(cols, 0, Object.fromEntries(known)));
    }
  }
  const group = { count: spec.hiddenSize, members };
  if (method.unitScores !== undefined) return method.unitScores(group, statistics, options);
  const each = members.map(({ layer }, m) => method.score!(layer, statistics[m], options));
  return unitScores(group, each);
}

/** Means over windows of the gradient of a window's loss, and of its square. @throws NonFiniteError, UsageError */
async function gradientsOf(
  spec: ModelSpec,
  weights: ReadonlyMap<string, FloatArray>,
  wanted: readonly GradientStatistic[],
  { tokens, window }: TextWindows,
  { signal, onProgress }: JobOptions,
): Promise<Gradients> {
  const parameters = modelParameters(spec);
  const count = tokens.length / window;
  const stage = new Stage("gradients of the loss", count, "windows", onProgress);
  const means = new Map(
    wanted.map((id) => [
      id,
      new Map(parameters.map(({ name }) => [name, new Float32Array(weights.get(name)!.length)])),
    ]),
  );
  using objective = await decoderObjective(spec, parameters, window, "wasm", { masked: true });
  for (let w = 0; w < count; w++) {
    await breathe(signal);
    const own = Int32Array.from(tokens.subarray(w * window, (w + 1) * window));
    // The last token of a window is followed by none.
    const label = Int32Array.from(own, (_, t) => (t === window - 1 ? -1 : own[t + 1]));
    const { loss, gradients } = await objective.lossAndGradients(weights, {
      tokens: { shape: [window], values: own },
      label: { shape: [window], values: label },
    });
    if (!Number.isFinite(loss)) throw new NonFiniteError(`the loss of window ${w} of the calibration text is ${loss}`);
    for (const [id, byName] of means) {
      for (const [name, mean] of byName) {
        const gradient = gradients.get(name)!;
        for (let i = 0; i < mean.length; i++) {
          const g = gradient[i];
          mean[i] += (id === "gradients" ? g : g * g) / count;
        }
      }
    }
    stage.advance(1);
  }
  return means;
}

/** The weights of a narrower model. */
function cutWeights(
  from: readonly ModelParameter[],
  to: readonly ModelParameter[],
  weights: ReadonlyMap<string, FloatArray>,
  stay: readonly number[],
): Map<string, FloatArray> {
  const cut = from.map(({ name, shape }, p): [string, FloatArray] => {
    const values = weights.get(name)!;
    const axes = streamAxes(shape, to[p].shape);
    if (axes.length === 0) return [to[p].name, values];
    const [rows, cols] = shape.length === 1 ? [1, shape[0]] : shape;
    const lines = (length: number, axis: number) => (axes.includes(axis) ? stay : Array.from({ length }, (_, i) => i));
    const [r, c] = shape.length === 1 ? [[0], stay] : [lines(rows, 0), lines(cols, 1)];
    const out = new Float32Array(r.length * c.length);
    let at = 0;
    for (const row of r) for (const col of c) out[at++] = values[row * cols + col];
    return [to[p].name, out];
  });
  return new Map(cut);
}
