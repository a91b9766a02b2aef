import {
  type BlockSpec,
  type EmbeddingSpec,
  type LinearSpec,
  linearsOf,
  type ModelSpec,
  type NormSpec,
  stepsOf,
  type TensorRef,
  tensorsOfBlock,
} from "../../arch/index.js";
import type { Random } from "../../core/index.js";
import type { LogicalTensor } from "../../io/index.js";
import { isWhole, partName, shapeOfReference } from "../../io/internal.js";
import { storedMap, storedMatrices } from "../../model/internal.js";
import { elementCount, type Factors } from "../../tensor/index.js";
import { factorPartShapes } from "../../tensor/internal.js";
import type { FloatArray, ParameterInfo, SharedUnits } from "../values.js";

/** A trainable tensor of a described model: a linear map as W [out, in], however the checkpoint stores it, or a vector. */
export interface ModelParameter extends ParameterInfo {
  /** Where its numbers lie in the checkpoint. */
  ref: TensorRef;
  /**
   * What a model without weights begins with: small random numbers for matrices, such of variance 1 for factors that are to keep the
   * size of what they multiply, whatever changes nothing for vectors.
   */
  start: "normal" | "unit" | "ones" | "zeros";
}

/** The name of what a reference stands for: that of its tensor, with the rows that are meant where these are not all. */
export function parameterName({ tensor, rows, stacked }: TensorRef): string {
  const piece = stacked === undefined ? "" : `[${stacked}]`;
  if (rows === undefined) return tensor + piece;
  const { first, run, stride, runs } = rows;
  const every = runs === 1 ? "" : ` of every ${stride}, ${runs} times`;
  return `${tensor}${piece}[${first}:${first + run}${every}]`;
}

type Stored = ReadonlyMap<string, Pick<LogicalTensor, "name" | "shape" | "factors">>;

/** Parameters in the order in which they are added, each once: a tied head is the embedding. */
class Parameters {
  readonly #found = new Map<string, ModelParameter>();

  constructor(readonly stored: Stored) {}

  get all(): ModelParameter[] {
    return [...this.#found.values()];
  }

  add(ref: TensorRef, start: ModelParameter["start"], more: Partial<ParameterInfo> = {}): void {
    const name = parameterName(ref);
    const factors = isWhole(ref) ? this.stored.get(ref.tensor)?.factors : undefined;
    if (factors !== undefined) this.#parts(ref, factors.form, more.layer);
    if (factors !== undefined || this.#found.has(name)) return;
    this.#found.set(name, { name, shape: shapeOfReference(ref), layer: "", role: "dense", ...more, ref, start });
  }

  /** What is learnt of a matrix in factors: its parts, none of which is made sparse. */
  #parts(of: TensorRef, form: Factors, layer = ""): void {
    const [rows, cols] = of.shape;
    const matrix = { of: parameterName(of), form, shape: { rows, cols }, integers: {} };
    for (const [part, { shape, below }] of Object.entries(factorPartShapes(form, matrix.shape))) {
      if (below !== undefined) continue;
      const name = partName(of.tensor, part);
      const ref = { tensor: name, shape };
      this.#found.set(name, {
        name,
        shape,
        layer,
        role: "dense",
        ref,
        start: "normal",
        part: { ...matrix, name: part },
      });
    }
  }

  norm({ weight, bias, plusOne }: NormSpec): void {
    this.add(weight, plusOne ? "zeros" : "ones");
    if (bias) this.add(bias, "zeros");
  }

  embedding({ table, positions, types, norm }: EmbeddingSpec): void {
    this.add(table, "normal");
    if (positions) this.add(positions.table, "normal");
    if (types) this.add(types, "normal");
    if (norm) this.norm(norm);
  }

  block(block: BlockSpec, number: number): void {
    const layer = String(number);
    const maps = new Map(linearsOf(block).map((map) => [map.weight, map]));
    const biases = new Map(linearsOf(block).map((map) => [map.bias, map]));
    const norms = new Map<TensorRef, NormSpec>();
    const scales = new Set<TensorRef>();
    for (const step of stepsOf(block)) {
      if (step.do === "norm") norms.set(step.norm.weight, step.norm);
      else if (step.do === "multiplicative") for (const map of step.maps) scales.add(map.scales);
    }
    for (const ref of tensorsOfBlock(block)) {
      const norm = norms.get(ref);
      const map = maps.get(ref);
      if (norm !== undefined) this.norm(norm);
      else if (map === undefined) {
        const shared = sharedUnits(layer, biases.get(ref) ?? {}).filter(({ axis }) => axis === "rows");
        const isMatrix = shapeOfReference(ref).length === 2;
        const start = scales.has(ref) ? "unit" : isMatrix ? "normal" : "zeros";
        this.add(ref, start, shared.length > 0 ? { shared } : {});
      } else {
        const form = storedMap(map, this.stored);
        const direct = { layer, role: "inner", shared: sharedUnits(layer, map) } as const;
        for (const { ref } of storedMatrices(form)) this.add(ref, "normal", ref === form.direct ? direct : {});
      }
    }
  }

  head({ finalNorm, head }: ModelSpec): void {
    if (finalNorm) this.norm(finalNorm);
    if (head.kind === "none") return;
    for (const { weight, bias } of head.kind === "classifier" ? linearsOf(head) : []) {
      this.add(weight, "normal");
      if (bias) this.add(bias, "zeros");
    }
    this.add(head.map.weight, "normal");
    if (head.map.bias) this.add(head.map.bias, "zeros");
  }
}

/**
 * The trainable tensors of a model, in the order in which it uses them. The linear maps of its blocks may be made sparse, all of
 * them inner; routers, head and embeddings stay dense.
 * @param stored the tensors of the checkpoint, which tell where a pair of low rank takes the place of a matrix, or other factors do,
 * whose parts are trained then
 */
export function modelParameters(spec: ModelSpec, stored: Stored = new Map()): ModelParameter[] {
  const parameters = new Parameters(stored);
  parameters.embedding(spec.embedding);
  for (const [number, block] of spec.blocks.entries()) parameters.block(block, number);
  parameters.head(spec);
  return parameters.all;
}

/**
 * The parameters of a model that has learnt and gets something beside: all, those that it had, and those that are new.
 * @param own its description as it was
 * @param spec with what comes beside
 */
export function extendedParameters(own: ModelSpec, spec: ModelSpec, stored?: Stored) {
  const parameters = modelParameters(spec, stored);
  const known = new Set(modelParameters(own, stored).map(({ name }) => name));
  const [had, added] = [true, false].map((is) => parameters.filter(({ name }) => known.has(name) === is));
  return { parameters, had, added };
}

/** Those of one block. */
export function blockParameters(block: BlockSpec, number: number): ModelParameter[] {
  const parameters = new Parameters(new Map());
  parameters.block(block, number);
  return parameters.all;
}

/** Those of the final norm and the head. */
export function headParameters(spec: ModelSpec): ModelParameter[] {
  const parameters = new Parameters(new Map());
  parameters.head(spec);
  return parameters.all;
}

const sharedUnits = (layer: string, { units = [] }: Pick<LinearSpec, "units">): SharedUnits[] =>
  units.map(({ kind, group, axis, count }) => ({
    type: kind,
    group: `${layer}.${group}`,
    axis: axis === "rows" ? "rows" : "columns",
    count,
  }));

/** Values to begin a model with that has none: matrices normal with the given deviation. */
export function initialWeights(
  parameters: readonly ModelParameter[],
  random: Random,
  deviation = 0.02,
): Map<string, FloatArray> {
  return new Map(
    parameters.map(({ name, shape, start }) => {
      const length = elementCount(shape);
      if (start === "normal" || start === "unit") {
        const size = start === "unit" ? 1 : deviation;
        return [name, Float32Array.from({ length }, () => size * random.normal())];
      }
      return [name, new Float32Array(length).fill(start === "ones" ? 1 : 0)];
    }),
  );
}
