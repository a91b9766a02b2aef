import { UsageError } from "../core/index.js";
import type { CoupledGroup, CoupledMember, Layer } from "./contract.js";
import { layerFactor } from "./hessian.js";
import { removeColumns } from "./leastSquares.js";
import { zerosFor } from "./pattern.js";
import { finishedWeight, workingCopy } from "./score.js";
import { pruneSmallest } from "./select.js";
import type { InputStatistics } from "./statistics.js";

/**
 * Units that several matrices share: MLP neurons and attention heads. Removing one removes matching slices of all its
 * matrices, so that shapes still agree; nothing else of the model changes.
 */
export type UnitType = "neurons" | "heads";

/** Consecutive rows or columns of a member that belong to one unit. @throws UsageError when they do not divide */
export function unitSize(member: CoupledMember, count: number): number {
  const length = member.axis === "rows" ? member.layer.rows : member.layer.cols;
  if (length % count !== 0) throw new UsageError(`${length} ${member.axis} do not divide into ${count} units`);
  return length / count;
}

/** f32 [count]: the root of the sum of squared scores of all weights of each unit. @param scores one per member */
export function unitScores(group: CoupledGroup, scores: readonly Float32Array[]): Float32Array {
  const sums = new Float64Array(group.count);
  group.members.forEach((member, m) => {
    const size = unitSize(member, group.count);
    const { rows, cols } = member.layer;
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < cols; c++) {
        sums[Math.floor((member.axis === "rows" ? r : c) / size)] += scores[m][r * cols + c] ** 2;
      }
    }
  });
  return Float32Array.from(sums, Math.sqrt);
}

/**
 * Which units stay, ascending. At least one does.
 * @param multipleOf the number kept is rounded up to a multiple of this (kernels like 32 neurons)
 */
export function chooseUnits(scores: Float32Array, sparsity: number, multipleOf = 1): number[] {
  const count = scores.length;
  const kept = unitsKept(count, sparsity, multipleOf);
  const keep = new Uint8Array(count).fill(1);
  pruneSmallest(scores, 0, count, count - kept, keep);
  return Array.from(keep.keys()).filter((unit) => keep[unit] === 1);
}

/** How many of `count` units stay at a sparsity. */
export function unitsKept(count: number, sparsity: number, multipleOf = 1): number {
  const wanted = Math.max(1, count - zerosFor(count, sparsity));
  return Math.min(count, Math.ceil(wanted / multipleOf) * multipleOf);
}

/** The slices of the kept units as a smaller matrix, mask included. */
export function keepUnits(member: CoupledMember, count: number, kept: readonly number[]): Layer {
  const size = unitSize(member, count);
  const { weight, rows, cols, mask } = member.layer;
  const lines = kept.flatMap((unit) => Array.from({ length: size }, (_, i) => unit * size + i));
  const [newRows, newCols] = member.axis === "rows" ? [lines.length, cols] : [rows, lines.length];
  const gather = <A extends Float32Array | Uint8Array>(from: A, to: A): A => {
    for (let r = 0; r < newRows; r++) {
      for (let c = 0; c < newCols; c++) {
        to[r * newCols + c] = member.axis === "rows" ? from[lines[r] * cols + c] : from[r * cols + lines[c]];
      }
    }
    return to;
  };
  const smaller: Layer = { weight: gather(weight, new Float32Array(newRows * newCols)), rows: newRows, cols: newCols };
  return mask === undefined ? smaller : { ...smaller, mask: gather(mask, new Uint8Array(newRows * newCols)) };
}

/** The entries of the kept units of a bias or another vector along the unit axis. */
export function keepUnitsOfVector(values: Float32Array, count: number, kept: readonly number[]): Float32Array {
  const size = values.length / count;
  return Float32Array.from(
    { length: kept.length * size },
    (_, i) => values[kept[Math.floor(i / size)] * size + (i % size)],
  );
}

/** u8 [rows, cols], 1 = keep: the same removal as zeros, shapes unchanged. */
export function unitMask(member: CoupledMember, count: number, kept: readonly number[]): Uint8Array {
  const size = unitSize(member, count);
  const { rows, cols } = member.layer;
  const keep = new Uint8Array(count);
  for (const unit of kept) keep[unit] = 1;
  return Uint8Array.from({ length: rows * cols }, (_, i) => {
    const line = member.axis === "rows" ? Math.floor(i / cols) : i % cols;
    return keep[Math.floor(line / size)];
  });
}

/**
 * For members with units on their columns (down_proj, o_proj): the weights with the removed units' columns zero and the
 * other columns moved to make good for them, the exact least-squares solution on the calibration inputs.
 * @param statistics with the gram of the member's input
 */
export function repairColumns(
  member: CoupledMember,
  count: number,
  kept: readonly number[],
  statistics: InputStatistics,
  damping = 0.01,
): Layer {
  if (member.axis !== "columns") throw new UsageError("only removed columns can be made good for by others");
  const { layer } = member;
  const factor = layerFactor(statistics, damping);
  const { weights, keep } = workingCopy(layer, factor.dead);
  const mask = unitMask(member, count, kept);
  const removed = Array.from({ length: layer.cols }, (_, c) => c).filter((c) => mask[c] === 0);
  removeColumns(weights, layer.rows, layer.cols, factor, removed);
  return { ...layer, weight: finishedWeight(weights, keep) };
}
