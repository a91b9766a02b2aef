import type { CoupledGroup } from "./contract.js";
import { unitSize } from "./structured.js";

/** How the scores of the matrices of a group become one score. */
export const aggregations = ["sum", "mean", "max", "prod", "first", "last"] as const;
/** "sum", "max" and the other ways to join the scores of a group's matrices. */
export type Aggregation = (typeof aggregations)[number];

const joins: Readonly<Record<Aggregation, (scores: readonly number[]) => number>> = {
  sum: (scores) => scores.reduce((sum, score) => sum + score),
  mean: (scores) => scores.reduce((sum, score) => sum + score) / scores.length,
  max: (scores) => Math.max(...scores),
  prod: (scores) => scores.reduce((product, score) => product * score),
  first: (scores) => scores[0],
  last: (scores) => scores.at(-1)!,
};

/** What the entries of one row or column come to: the value of `entry` is added up, and `whole` makes the score of the sum. */
export interface LineScore {
  entry: (index: number) => number;
  whole: (sum: number) => number;
}

/** f64 [lines]: the scores of the rows or columns of a matrix. */
export function lineScores(
  { rows, cols }: { rows: number; cols: number },
  axis: "rows" | "columns",
  { entry, whole }: LineScore,
): Float64Array {
  const sums = new Float64Array(axis === "rows" ? rows : cols);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) sums[axis === "rows" ? r : c] += entry(r * cols + c);
  return sums.map(whole);
}

/**
 * f32 [count]: scores of the units of a group from those of the rows or columns of its members. A member that has several times
 * as many lines of a unit as another (the queries that share a key head) is folded onto it; then members are joined line by
 * line, and the lines of a unit added up.
 * @param lines f64 [lines] of every member
 */
export function joinMembers(
  { count, members }: Pick<CoupledGroup, "count" | "members">,
  lines: readonly Float64Array[],
  how: Aggregation,
): Float32Array {
  const sizes = members.map((member) => unitSize(member, count));
  const smallest = Math.min(...sizes);
  // Members of unlike units (keys wider than values) have only the units in common.
  const depth = sizes.every((size) => size % smallest === 0) ? smallest : 1;
  const scores = new Float32Array(count);
  for (let unit = 0; unit < count; unit++) {
    let sum = 0;
    for (let line = 0; line < depth; line++) {
      const folded = lines.map((values, m) => {
        let total = 0;
        for (let i = line; i < sizes[m]; i += depth) total += values[unit * sizes[m] + i];
        return total;
      });
      sum += joins[how](folded);
    }
    scores[unit] = sum;
  }
  return scores;
}
