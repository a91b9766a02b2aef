import { assignRows } from "./linalg/assignment.js";
import { transposed } from "./linalg/index.js";

/** One linear map of an expert, row-major [rows, cols]: its rows lie at the hidden units of the MLP, or its columns do. */
export interface ExpertMap {
  values: Float32Array;
  rows: number;
  cols: number;
  hidden: "rows" | "cols";
}

/** How experts that go are folded into those that stay. */
export interface MergeMethod {
  readonly id: string;
  readonly title: string;
  readonly paper: string;
  /** Whether hidden units are matched first: maps must lie in tensors of their own. */
  readonly aligns: boolean;
}

const paper = "Li et al. 2024, arXiv:2310.01334";

/** Every way of merging experts. */
export const expertMerges: Readonly<Record<string, MergeMethod>> = {
  average: {
    id: "average",
    title: "weights averaged by the tokens that each expert got",
    paper,
    aligns: false,
  },
  aligned: {
    id: "aligned",
    title: "as average, after the hidden units were put in the order of those that they are most like",
    paper,
    aligns: true,
  },
};

/**
 * Puts every expert to the one of `kept` whose router logits are most like its own.
 * @param products f64 [experts, experts]: sums of products of router logits over the tokens of a text
 * @returns members of each of `kept`, itself first, then ascending
 */
export function mergeGroups(kept: readonly number[], products: Float64Array): number[][] {
  const count = Math.sqrt(products.length);
  const groups = new Map(kept.map((expert) => [expert, [expert]]));
  const cosine = (a: number, b: number) => {
    const sizes = products[a * count + a] * products[b * count + b];
    return sizes > 0 ? products[a * count + b] / Math.sqrt(sizes) : -1;
  };
  for (let expert = 0; expert < count; expert++) {
    if (groups.has(expert)) continue;
    const best = kept.reduce((a, b) => (cosine(expert, b) > cosine(expert, a) ? b : a));
    groups.get(best)!.push(expert);
  }
  return [...groups.values()];
}

/** Shares of the members of a group: by their tokens, or all of the first where none got any. */
export function mergeShares(counts: readonly number[]): number[] {
  const total = counts.reduce((a, b) => a + b, 0);
  return counts.map((count, m) => (total > 0 ? count / total : m === 0 ? 1 : 0));
}

/**
 * For every hidden unit of `to` the unit of `from` that is to take its place: the assignment with the largest sum of inner
 * products over all maps. Time grows with the cube of the units.
 */
export function matchHiddenUnits(to: readonly ExpertMap[], from: readonly ExpertMap[]): Uint32Array {
  const [{ hidden, rows, cols }] = to;
  const units = hidden === "rows" ? rows : cols;
  const likeness = new Float64Array(units * units);
  for (const [m, map] of to.entries()) addLikeness(likeness, byUnit(map), byUnit(from[m]), units);
  return assignRows(likeness, units);
}

/** The map with its hidden units in another order. */
export function permuted(map: ExpertMap, order: Uint32Array): Float32Array {
  const { values, rows, cols, hidden } = map;
  const out = new Float32Array(values.length);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      out[r * cols + c] = hidden === "rows" ? values[order[r] * cols + c] : values[r * cols + order[c]];
    }
  }
  return out;
}

type Floats = Float32Array | Float64Array;

/** Row-major [units, other width]. */
const byUnit = ({ values, rows, cols, hidden }: ExpertMap): Floats =>
  hidden === "rows" ? values : transposed(values, rows, cols);

function addLikeness(into: Float64Array, a: Floats, b: Floats, units: number): void {
  const width = a.length / units;
  for (let i = 0; i < units; i++) {
    for (let j = 0; j < units; j++) {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += a[i * width + k] * b[j * width + k];
      into[i * units + j] += sum;
    }
  }
}
