import { type BlockSpec, linearsOf, type ModelSpec } from "../../arch/index.js";
import type { GradientStatistic } from "../../compress/index.js";
import { breathe, type JobOptions, NonFiniteError, Stage, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { BlockGradients, TextWindows } from "../../pipeline/index.js";
import { embedWindows } from "../../pipeline/internal.js";
import { crossEntropy } from "../engine/layers.js";
import { multiply, sum } from "../engine/ops.js";
import { type TracedArrays, tracedObjective } from "../engine/tracedObjective.js";
import { readWeights } from "../languageModel.js";
import { blockParameters, headParameters, type ModelParameter, parameterName } from "../models/parameters.js";
import type { Batch, BatchArray, Objective } from "../objective.js";
import type { FloatArray } from "../values.js";
import { TracedPass } from "./pass.js";
import { refuseUntraced } from "./steps.js";
import { traceBlock, traceHead } from "./trace.js";

/** Names in traced batches: what enters a block, and dL/d(what leaves it). */
const [inputName, outerName] = ["residual stream", "gradient behind"];

/**
 * See `GradientSource`. Forward through all blocks, keeping what enters each, f32 [tokens, hiddenSize]; then backward, a block at a
 * time: its weights are read, and dL/d(what leaves it) becomes the gradients of its maps and dL/d(what enters it).
 */
export async function* blockGradients(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  windows: TextWindows,
  wanted: readonly GradientStatistic[],
  { signal, onProgress }: JobOptions = {},
): AsyncGenerator<BlockGradients> {
  refuseUntraced(spec);
  const { tokens, window: length } = windows;
  const count = tokens.length / length;
  if (length < 2 || count < 1) throw new UsageError(`${tokens.length} tokens in windows of ${length} predict nothing`);
  const layers = spec.blocks.length;
  const stage = new Stage("gradients of the loss", count * (2 * layers + 1), "windows", onProgress);
  const width = length * spec.hiddenSize;
  const eachWindow = async (at: string, visit: (start: number, window: number) => Promise<void>) => {
    for (let window = 0; window < count; window++) {
      await breathe(signal);
      await visit(window * width, window);
      stage.advance(1, at);
    }
  };
  using blocks = new BlockObjectives(checkpoint, spec, length);

  const streams = [await embedWindows(checkpoint, spec, tokens, length)];
  for (let layer = 0; layer < layers; layer++) {
    const { objective, weights, batch } = await blocks.load(layer);
    const [before, after] = [streams[layer], new Float32Array(streams[layer].length)];
    await eachWindow(`block ${layer + 1} of ${layers}, forward`, async (start) => {
      weights.set(inputName, before.subarray(start, start + width));
      after.set(await objective.predict(weights, batch), start);
    });
    streams.push(after);
  }

  const outer = await headGradients(checkpoint, spec, streams.pop()!, windows, eachWindow);
  for (let layer = layers - 1; layer >= 0; layer--) {
    const { objective, weights, batch, ids } = await blocks.load(layer);
    const before = streams.pop()!;
    const sums = new Map(wanted.map((statistic) => [statistic, new Map<string, Float64Array>()]));
    await eachWindow(`block ${layer + 1} of ${layers}, backward`, async (start) => {
      const own = outer.subarray(start, start + width);
      weights.set(inputName, before.subarray(start, start + width));
      const { gradients } = await objective.lossAndGradients(weights, {
        ...batch,
        [outerName]: { shape: [length, spec.hiddenSize], values: own },
      });
      for (const [name, id] of ids) {
        const gradient = gradients.get(name)!;
        checkGradient(gradient, `${id} in block ${layer}`);
        for (const [statistic, byId] of sums) addTo(byId, id, gradient, powers[statistic]);
      }
      own.set(gradients.get(inputName)!);
    });
    const meansOf = (byId: ReadonlyMap<string, Float64Array>) =>
      new Map(Array.from(byId, ([id, total]) => [id, Float32Array.from(total, (sum) => sum / count)]));
    yield { layer, values: Object.fromEntries(Array.from(sums, ([statistic, byId]) => [statistic, meansOf(byId)])) };
  }
}

/** No token: what the last position of a window would predict. */
const unknown = -1;

/** The tokens that follow those of a window; none behind the last. */
const labelsOf = (window: Uint32Array): Int32Array => Int32Array.from(window, (_, t) => window[t + 1] ?? unknown);

/** What of a gradient is added up. */
const powers: Readonly<Record<GradientStatistic, 1 | 2>> = { gradients: 1, squaredGradients: 2 };

function addTo(sums: Map<string, Float64Array>, id: string, gradient: FloatArray, power: 1 | 2): void {
  const found = sums.get(id) ?? new Float64Array(gradient.length);
  sums.set(id, found);
  for (let i = 0; i < found.length; i++) found[i] += power === 1 ? gradient[i] : gradient[i] * gradient[i];
}

/** @throws NonFiniteError */
function checkGradient(gradient: FloatArray, where: string): void {
  let squares = 0;
  for (const value of gradient) squares += value * value;
  if (!Number.isFinite(squares)) throw new NonFiniteError(`the gradient of ${where} is not finite`);
}

/** dL/d(what leaves the last block), L the loss of each window: f32 like the stream. */
async function headGradients(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  stream: Float32Array,
  { tokens, window: length }: TextWindows,
  eachWindow: (at: string, visit: (start: number, window: number) => Promise<void>) => Promise<void>,
): Promise<Float32Array> {
  const parameters = headParameters(spec);
  const weights = await readWeights(checkpoint, parameters);
  // The head's own gradients are not wanted. Were they not asked for, the engine would compute the gradient of the logits anew
  // inside of the product that it enters, exponentials and all, which takes 30 times as long.
  using objective = tracedObjective({
    parameters: [streamParameter(length, spec), ...parameters],
    predict: (weights) => traceHead(spec, weights[inputName], passOf(weights, length)),
    // The mean over the rows that predict something: all but the last.
    loss: (weights, { label }) => ({
      loss: multiply(
        crossEntropy(traceHead(spec, weights[inputName], passOf(weights, length)), label),
        length / (length - 1),
      ),
    }),
  });
  const outer = new Float32Array(stream.length);
  const width = length * spec.hiddenSize;
  await eachWindow("head", async (start, window) => {
    weights.set(inputName, stream.subarray(start, start + width));
    const values = labelsOf(tokens.subarray(window * length, (window + 1) * length));
    const { gradients } = await objective.lossAndGradients(weights, { label: { shape: [length], values } });
    outer.set(gradients.get(inputName)!, start);
  });
  return outer;
}

/** Blocks as functions of what enters them; those that have the same steps share what the engine has compiled. */
class BlockObjectives implements Disposable {
  readonly #compiled = new Map<string, { objective: Objective; parameters: readonly ModelParameter[] }>();

  constructor(
    readonly checkpoint: Checkpoint,
    readonly spec: ModelSpec,
    /** Tokens of a window. */
    readonly length: number,
  ) {}

  /** A block with its weights: those of its maps, to be differentiated, and the others as parts of a batch. */
  async load(layer: number): Promise<{
    objective: Objective;
    weights: Map<string, FloatArray>;
    batch: Batch;
    /** Id of each map by the name of its weights. */
    ids: ReadonlyMap<string, string>;
  }> {
    const block = this.spec.blocks[layer];
    const own = blockParameters(block, layer);
    const values = await readWeights(this.checkpoint, own);
    const { objective, parameters } = this.#compile(block, own);
    const idOf = new Map(linearsOf(block).map(({ id, weight }) => [parameterName(weight), id]));
    const weights = new Map<string, FloatArray>();
    const batch: Record<string, BatchArray> = {};
    const ids = new Map<string, string>();
    // By the names of the block that was compiled.
    for (const [p, { name, shape }] of parameters.entries()) {
      const array = values.get(own[p].name)!;
      const id = idOf.get(own[p].name);
      if (id === undefined) batch[name] = { shape, values: array };
      else {
        weights.set(name, array);
        ids.set(name, id);
      }
    }
    return { objective, weights, batch, ids };
  }

  [Symbol.dispose](): void {
    for (const { objective } of this.#compiled.values()) objective[Symbol.dispose]();
  }

  #compile(block: BlockSpec, parameters: readonly ModelParameter[]) {
    const key = shapeOfBlock(block);
    const found = this.#compiled.get(key);
    if (found !== undefined) return found;
    const { spec, length } = this;
    const output = (weights: TracedArrays, batch: TracedArrays) =>
      traceBlock(block, 0, weights[inputName], passOf({ ...batch, ...weights }, length));
    const objective = tracedObjective({
      parameters: [streamParameter(length, spec), ...parameters.filter(({ role }) => role === "inner")],
      predict: output,
      // Its gradient is that of the loss behind the block.
      loss: (weights, batch) => ({ loss: sum(multiply(output(weights, batch), batch[outerName])) }),
    });
    const compiled = { objective, parameters };
    this.#compiled.set(key, compiled);
    return compiled;
  }
}

/** What two blocks have in common that differ in the names of their tensors alone. */
const shapeOfBlock = (block: BlockSpec): string =>
  JSON.stringify(block, (key, value) => (key === "tensor" ? undefined : value));

const passOf = (arrays: TracedArrays, length: number) => new TracedPass(arrays, arrays, 1, length, {});

const streamParameter = (length: number, { hiddenSize }: ModelSpec) =>
  ({ name: inputName, shape: [length, hiddenSize], layer: "", role: "dense" }) as const;
