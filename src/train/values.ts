import type { Factors, MatrixShape } from "../tensor/index.js";

/** Arrays that training works on: f32; f64 only where a test differentiates numerically. */
export type FloatArray = Float32Array | Float64Array;

/** Trainable values by parameter name, row-major; the shapes are in the objective's `parameters`. */
export type Values = ReadonlyMap<string, FloatArray>;

/** What is known of a trainable tensor. */
export interface ParameterInfo {
  name: string;
  /** [out, in] of a linear weight. */
  shape: readonly number[];
  /** Layer to which layer-wise budgets count it: "0", "1" … from input to output. */
  layer: string;
  /**
   * What may be made sparse: "inner" linear weights, "outer" ones (first and last layer, which layer-wise methods leave
   * dense), or "dense" for everything else: embeddings, norms, biases.
   */
  role: "inner" | "outer" | "dense";
  /** Neurons and heads that have rows or columns of this matrix, or entries of this bias. */
  shared?: readonly SharedUnits[];
  /** Present where it is a part of the factors that a matrix is made of. */
  part?: FactorPart;
}

/** A part of a matrix that is trained as its factors. */
export interface FactorPart {
  /** Name that the matrix would have among the parameters. */
  of: string;
  /** How the matrix is made of its parts. */
  form: Factors;
  /** Of the matrix. */
  shape: MatrixShape;
  /** Which part this is. */
  name: string;
  /** Parts of the same matrix that are no numbers to be learnt, by name; `readWeights` fills them in. */
  integers: Record<string, Uint32Array>;
}

/** Units that several matrices share: a neuron is a row of the matrix before it and a column of the one behind it. */
export interface SharedUnits {
  type: "neurons" | "heads";
  /** The same for all matrices that share these units. */
  group: string;
  /** Where they lie in this matrix: consecutive rows or columns, as many for each unit. */
  axis: "rows" | "columns";
  /** How many units; divides that side of the matrix. */
  count: number;
}

export const isSparsifiable = (info: ParameterInfo): boolean => info.role !== "dense";

/** New arrays of the same types and lengths, made by `make`. */
export function mapValues(
  values: Values,
  make: (values: FloatArray, name: string) => FloatArray,
): Map<string, FloatArray> {
  return new Map(Array.from(values, ([name, array]) => [name, make(array, name)]));
}

export const zerosLike = (values: Values): Map<string, FloatArray> =>
  mapValues(values, (array) =>
    array instanceof Float64Array ? new Float64Array(array.length) : new Float32Array(array.length),
  );

export const cloneValues = (values: Values): Map<string, FloatArray> => mapValues(values, (array) => array.slice());

/** Σ x² over all arrays, in f64. */
export function squaredNorm(values: Iterable<FloatArray>): number {
  let sum = 0;
  for (const array of values) for (let i = 0; i < array.length; i++) sum += array[i] * array[i];
  return sum;
}
