import { type BlockSpec, linearsOf, type ModelSpec } from "../../arch/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { BackwardOptions } from "../../pipeline/index.js";
import { multiply, sum } from "../engine/ops.js";
import { type TracedArrays, tracedObjective } from "../engine/tracedObjective.js";
import { readWeights } from "../languageModel.js";
import { blockParameters, type ModelParameter, parameterName } from "../models/parameters.js";
import type { Batch, BatchArray, Objective } from "../objective.js";
import type { FloatArray } from "../values.js";
import { fillingName } from "./filling.js";
import { TracedPass } from "./pass.js";
import { traceBlock } from "./trace.js";

/** Names in traced batches: what enters a block, and dL/d(what leaves it). */
export const [inputName, outerName] = ["residual stream", "gradient behind"];

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
export class BlockObjectives implements Disposable {
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

export const passOf = (arrays: TracedArrays, length: number) =>
  new TracedPass(arrays, arrays, arrays[inputName].shape[0] / length, length, {}, arrays[fillingName]);

export const streamParameter = (shape: readonly number[]) =>
  ({ name: inputName, shape, layer: "", role: "dense" }) as const;
