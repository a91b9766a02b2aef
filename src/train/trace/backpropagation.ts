import { type BlockSpec, linearsOf, type ModelSpec } from "../../arch/index.js";
import { breathe, NonFiniteError, Stage, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { BackwardOptions, TextWindows } from "../../pipeline/index.js";
import { embedWindows } from "../../pipeline/internal.js";
import { crossEntropy } from "../engine/layers.js";
import { multiply, sum } from "../engine/ops.js";
import { type TracedArrays, tracedObjective } from "../engine/tracedObjective.js";
import { readWeights } from "../languageModel.js";
import { blockParameters, headParameters, type ModelParameter, parameterName } from "../models/parameters.js";
import type { Batch, BatchArray, Objective } from "../objective.js";
import type { FloatArray } from "../values.js";
import { fillingName, TracedPass } from "./pass.js";
import { refuseUntraced } from "./steps.js";
import { traceBlock, traceHead } from "./trace.js";

/** Names in traced batches: what enters a block, and dL/d(what leaves it). */
const [inputName, outerName] = ["residual stream", "gradient behind"];

/** Who is told of gradients. */
export interface Asked {
  /** Windows whose mean loss is one gradient. */
  together: number;
  /** @param gradients dL/dW [rows, cols] by id of each linear map @param weights W, by the same ids */
  visit(layer: number, gradients: ReadonlyMap<string, FloatArray>, weights: ReadonlyMap<string, FloatArray>): void;
}

/**
 * Forward through all blocks, keeping what enters each, f32 [tokens, hiddenSize]; then backward, a block at a time: its weights are
 * read, and dL/d(what leaves it) becomes the gradients of its maps and dL/d(what enters it).
 * @returns the blocks as all of their gradients have been told, from the last to the first
 */
export async function* backpropagate(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  windows: TextWindows,
  { together, visit }: Asked,
  { signal, onProgress, change }: BackwardOptions = {},
): AsyncGenerator<number> {
  const classifies = spec.head.kind === "classifier";
  refuseUntraced(spec, { classifier: true });
  const { tokens, window: length, lengths, labels } = windows;
  const count = tokens.length / length;
  if (length < 2 || count < 1) throw new UsageError(`${tokens.length} tokens in windows of ${length} predict nothing`);
  if (classifies && labels === undefined)
    throw new UsageError("the gradient of a classifier's loss needs labelled texts");
  const layers = spec.blocks.length;
  const passes = Math.ceil(count / together);
  const stage = new Stage("gradients of the loss", passes * (2 * layers + 1), "passes", onProgress);
  const width = length * spec.hiddenSize;
  const eachPass = async (at: string, visit: (pass: Pass) => Promise<void>) => {
    for (let first = 0; first < count; first += together) {
      await breathe(signal);
      const sequences = Math.min(together, count - first);
      const filling = lengths && fillingOf(lengths.subarray(first, first + sequences), length);
      await visit({
        first,
        sequences,
        start: first * width,
        end: (first + sequences) * width,
        batch: filling === undefined ? {} : { [fillingName]: filling },
        shape: [sequences * length, spec.hiddenSize],
      });
      stage.advance(1, at);
    }
  };
  using blocks = new BlockObjectives(checkpoint, spec, length, change);

  const streams = [await embedWindows(checkpoint, spec, tokens, length)];
  for (let layer = 0; layer < layers; layer++) {
    const { predict } = await blocks.load(layer);
    const [before, after] = [streams[layer], new Float32Array(streams[layer].length)];
    await eachPass(`block ${layer + 1} of ${layers}, forward`, async ({ start, end, shape, batch }) => {
      after.set(await predict({ ...batch, [inputName]: { shape, values: before.subarray(start, end) } }), start);
    });
    streams.push(after);
  }

  const outer = await headGradients(checkpoint, spec, streams.pop()!, windows, eachPass);
  for (let layer = layers - 1; layer >= 0; layer--) {
    const { gradientsOf, maps } = await blocks.load(layer);
    const before = streams.pop()!;
    await eachPass(`block ${layer + 1} of ${layers}, backward`, async ({ start, end, shape, batch }) => {
      const own = outer.subarray(start, end);
      const { inner, input } = await gradientsOf(before.subarray(start, end), {
        ...batch,
        [outerName]: { shape, values: own },
      });
      for (const [id, gradient] of inner) checkGradient(gradient, `${id} in block ${layer}`);
      visit(layer, inner, maps);
      own.set(input);
    });
    yield layer;
  }
}

/** Windows that go through a block together. */
interface Pass {
  /** Window. */
  first: number;
  sequences: number;
  /** Of the streams. */
  start: number;
  end: number;
  /** Arrays of every batch. */
  batch: Batch;
  /** Of the stream of the pass. */
  shape: number[];
}

/** f32 [sequences, 1, 1, 1, length]: far below 0 where a text has ended. */
function fillingOf(lengths: Uint32Array, length: number): BatchArray {
  const values = new Float32Array(lengths.length * length);
  for (const [s, end] of lengths.entries()) values.fill(-1e9, s * length + end, (s + 1) * length);
  return { shape: [lengths.length, 1, 1, 1, length], values };
}

/** No token: what the last position of a window would predict. */
const unknown = -1;

/** The tokens that follow those of windows; none behind the last of each. */
const followers = (tokens: Uint32Array, length: number): Int32Array =>
  Int32Array.from(tokens, (_, t) => (t % length === length - 1 ? unknown : tokens[t + 1]));

/** @throws NonFiniteError */
function checkGradient(gradient: FloatArray, where: string): void {
  let squares = 0;
  for (const value of gradient) squares += value * value;
  if (!Number.isFinite(squares)) throw new NonFiniteError(`the gradient of ${where} is not finite`);
}

/** dL/d(what leaves the last block), L the mean loss of the windows of a pass: f32 like the stream. */
async function headGradients(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  stream: Float32Array,
  { tokens, window: length, labels }: TextWindows,
  eachPass: (at: string, visit: (pass: Pass) => Promise<void>) => Promise<void>,
): Promise<Float32Array> {
  const classifies = spec.head.kind === "classifier";
  const parameters = headParameters(spec);
  const weights = await readWeights(checkpoint, parameters);
  const outer = new Float32Array(stream.length);
  // By the rows of a pass: the stream is a parameter, and parameters have one shape.
  const compiled = new Map<number, Objective>();
  const objectiveOf = (shape: number[]): Objective => {
    const [rows] = shape;
    const found = compiled.get(rows);
    if (found !== undefined) return found;
    const logits = (weights: TracedArrays, batch: TracedArrays) =>
      traceHead(spec, weights[inputName], passOf({ ...batch, ...weights }, length));
    // The head's own gradients are not wanted. Were they not asked for, the engine would compute the gradient of the logits anew
    // inside of the product that it enters, exponentials and all, which takes 30 times as long.
    const objective = tracedObjective({
      parameters: [streamParameter(shape), ...parameters],
      predict: logits,
      // Of a text, the mean over the rows that predict something: all but the last of every window.
      loss: (weights, batch) => ({
        loss: multiply(crossEntropy(logits(weights, batch), batch.label), classifies ? 1 : length / (length - 1)),
      }),
    });
    compiled.set(rows, objective);
    return objective;
  };
  try {
    await eachPass("head", async ({ first, sequences, start, end, shape, batch }) => {
      weights.set(inputName, stream.subarray(start, end));
      const values = classifies
        ? labels!.slice(first, first + sequences)
        : followers(tokens.subarray(first * length, (first + sequences) * length), length);
      const label = { shape: [values.length], values };
      const { gradients } = await objectiveOf(shape).lossAndGradients(weights, { ...batch, label });
      outer.set(gradients.get(inputName)!, start);
    });
  } finally {
    for (const objective of compiled.values()) objective[Symbol.dispose]();
  }
  return outer;
}

/** A block with its weights, ready to be run and differentiated. */
interface LoadedBlock {
  /** Weights of its linear maps by their ids. */
  maps: ReadonlyMap<string, FloatArray>;
  /** What leaves it. @param batch with what enters it */
  predict(batch: Batch): Promise<FloatArray>;
  /** @param batch with dL/d(what leaves it) */
  gradientsOf(
    input: Float32Array,
    batch: Batch,
  ): Promise<{ inner: ReadonlyMap<string, FloatArray>; input: FloatArray }>;
}

/** What the engine has compiled for blocks that have the same steps. */
interface CompiledBlock {
  /** The first one; names are those of its tensors. */
  block: BlockSpec;
  parameters: readonly ModelParameter[];
  /** By the name among the arrays of the compiled block: the id of the map that a gradient is of. */
  ids: ReadonlyMap<string, string>;
  /** By the rows of a pass. */
  objectives: Map<number, Objective>;
}

/** Blocks as functions of what enters them; those that have the same steps share what the engine has compiled. */
class BlockObjectives implements Disposable {
  readonly #compiled = new Map<string, CompiledBlock>();

  constructor(
    readonly checkpoint: Checkpoint,
    readonly spec: ModelSpec,
    /** Tokens of a window. */
    readonly length: number,
    readonly change: BackwardOptions["change"],
  ) {}

  async load(layer: number): Promise<LoadedBlock> {
    const block = this.spec.blocks[layer];
    const own = blockParameters(block, layer);
    const values = await readWeights(this.checkpoint, own);
    const compiled = this.#compile(block, own);
    const { parameters, ids } = compiled;
    const weights = new Map<string, FloatArray>();
    const fixed: Record<string, BatchArray> = {};
    // By the names of the block that was compiled.
    for (const [p, { name, shape }] of parameters.entries()) {
      const array = values.get(own[p].name)!;
      if (ids.has(name)) weights.set(name, array);
      else fixed[name] = { shape, values: array };
    }
    const objectiveOf = (rows: number) => this.#objective(compiled, rows);
    const maps = new Map(Array.from(ids, ([name, id]) => [id, weights.get(name)!]));
    this.change?.(layer, maps);
    return {
      maps,
      predict: ({ [inputName]: input, ...batch }) =>
        objectiveOf(input.shape[0]).predict(new Map(weights).set(inputName, input.values as FloatArray), {
          ...batch,
          ...fixed,
        }),
      async gradientsOf(input, batch) {
        const arrays = new Map(weights).set(inputName, input);
        const objective = objectiveOf(batch[outerName].shape[0]);
        const { gradients } = await objective.lossAndGradients(arrays, { ...batch, ...fixed });
        return {
          inner: new Map(Array.from(ids, ([name, id]) => [id, gradients.get(name)!])),
          input: gradients.get(inputName)!,
        };
      },
    };
  }

  [Symbol.dispose](): void {
    for (const { objectives } of this.#compiled.values()) {
      for (const objective of objectives.values()) objective[Symbol.dispose]();
    }
  }

  #compile(block: BlockSpec, parameters: readonly ModelParameter[]): CompiledBlock {
    const key = shapeOfBlock(block);
    const found = this.#compiled.get(key);
    if (found !== undefined) return found;
    const ids = new Map(linearsOf(block).map(({ id, weight }) => [parameterName(weight), id]));
    const compiled = { block, parameters, ids, objectives: new Map<number, Objective>() };
    this.#compiled.set(key, compiled);
    return compiled;
  }

  #objective(compiled: CompiledBlock, rows: number): Objective {
    const found = compiled.objectives.get(rows);
    if (found !== undefined) return found;
    const { spec, length } = this;
    const { block, parameters } = compiled;
    const output = (weights: TracedArrays, batch: TracedArrays) =>
      traceBlock(block, 0, weights[inputName], passOf({ ...batch, ...weights }, length));
    const objective = tracedObjective({
      parameters: [streamParameter([rows, spec.hiddenSize]), ...parameters.filter(({ role }) => role === "inner")],
      predict: output,
      // Its gradient is that of the loss behind the block.
      loss: (weights, batch) => ({ loss: sum(multiply(output(weights, batch), batch[outerName])) }),
    });
    compiled.objectives.set(rows, objective);
    return objective;
  }
}

/** What two blocks have in common that differ in the names of their tensors alone. */
const shapeOfBlock = (block: BlockSpec): string =>
  JSON.stringify(block, (key, value) => (key === "tensor" ? undefined : value));

const passOf = (arrays: TracedArrays, length: number) =>
  new TracedPass(arrays, arrays, arrays[inputName].shape[0] / length, length, {}, arrays[fillingName]);

const streamParameter = (shape: readonly number[]) => ({ name: inputName, shape, layer: "", role: "dense" }) as const;
