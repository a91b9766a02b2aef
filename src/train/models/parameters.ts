import {
  type LinearSpec,
  linearsOf,
  type ModelSpec,
  type NormSpec,
  stepsOf,
  type TensorRef,
  tensorsOfBlock,
} from "../../arch/index.js";
import type { Random } from "../../core/index.js";
import { shapeOfReference } from "../../io/internal.js";
import { storedMap, storedMatrices } from "../../model/internal.js";
import { elementCount, type TensorInfo } from "../../tensor/index.js";
import type { FloatArray, ParameterInfo, SharedUnits } from "../values.js";

/** A trainable tensor of a described model: a linear map as W [out, in], however the checkpoint stores it, or a vector. */
export interface ModelParameter extends ParameterInfo {
  /** Where its numbers lie in the checkpoint. */
  ref: TensorRef;
  /** What a model without weights begins with: small random numbers for matrices, whatever changes nothing for vectors. */
  start: "normal" | "ones" | "zeros";
}

/** The name of what a reference stands for: that of its tensor, with the rows that are meant where these are not all. */
export function parameterName({ tensor, rows, stacked }: TensorRef): string {
  const piece = stacked === undefined ? "" : `[${stacked}]`;
  if (rows === undefined) return tensor + piece;
  const { first, run, stride, runs } = rows;
  const every = runs === 1 ? "" : ` of every ${stride}, ${runs} times`;
  return `${tensor}${piece}[${first}:${first + run}${every}]`;
}

/**
 * The trainable tensors of a model, in the order in which it uses them. The linear maps of its blocks may be made sparse, all of
 * them inner; routers, head and embeddings stay dense.
 * @param stored the tensors of the checkpoint, which tell where a pair of low rank takes the place of a matrix
 */
export function modelParameters(
  { embedding, blocks, finalNorm, head }: ModelSpec,
  stored: ReadonlyMap<string, TensorInfo> = new Map(),
): ModelParameter[] {
  const found = new Map<string, ModelParameter>();
  const add = (ref: TensorRef, start: ModelParameter["start"], more: Partial<ParameterInfo> = {}) => {
    const name = parameterName(ref);
    // A tied head is the embedding.
    if (found.has(name)) return;
    found.set(name, { name, shape: shapeOfReference(ref), layer: "", role: "dense", ...more, ref, start });
  };
  const addNorm = ({ weight, bias, plusOne }: NormSpec) => {
    add(weight, plusOne ? "zeros" : "ones");
    if (bias) add(bias, "zeros");
  };
  const addMap = ({ weight, bias }: LinearSpec) => {
    add(weight, "normal");
    if (bias) add(bias, "zeros");
  };

  add(embedding.table, "normal");
  if (embedding.positions) add(embedding.positions.table, "normal");
  if (embedding.types) add(embedding.types, "normal");
  if (embedding.norm) addNorm(embedding.norm);
  for (const [b, block] of blocks.entries()) {
    const layer = String(b);
    const maps = new Map(linearsOf(block).map((map) => [map.weight, map]));
    const norms = new Map<TensorRef, NormSpec>();
    for (const step of stepsOf(block)) if (step.do === "norm") norms.set(step.norm.weight, step.norm);
    for (const ref of tensorsOfBlock(block)) {
      const norm = norms.get(ref);
      const map = maps.get(ref);
      if (norm !== undefined) addNorm(norm);
      else if (map === undefined) add(ref, shapeOfReference(ref).length === 2 ? "normal" : "zeros");
      else {
        const form = storedMap(map, stored);
        const direct = { layer, role: "inner", shared: sharedUnits(layer, map) } as const;
        for (const { ref } of storedMatrices(form)) add(ref, "normal", ref === form.direct ? direct : {});
      }
    }
  }
  if (finalNorm) addNorm(finalNorm);
  addMap(head.map);
  return [...found.values()];
}

const sharedUnits = (layer: string, { units = [] }: LinearSpec): SharedUnits[] =>
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
      if (start === "normal") return [name, Float32Array.from({ length }, () => deviation * random.normal())];
      return [name, new Float32Array(length).fill(start === "ones" ? 1 : 0)];
    }),
  );
}
