import { findThreshold, keepAbove } from "../../tensor/internal.js";
import type { FloatArray, Values } from "../values.js";

/**
 * A matrix [rows, cols] cut into units. Entry (r, c) belongs to unit
 * offset + ⌊r / rowSpan⌋ · rowStride + ⌊c / colSpan⌋ · colStride, which covers single entries, blocks, rows and columns alike.
 */
export interface Member {
  name: string;
  rows: number;
  cols: number;
  offset: number;
  rowSpan: number;
  rowStride: number;
  colSpan: number;
  colStride: number;
}

/**
 * What is kept or dropped whole: entries, blocks, rows, columns, or neurons and heads, whose entries lie in several matrices.
 * Units may overlap, as the neurons of two layers do in the matrix between them: an entry stays while all its units stay.
 */
export interface Units {
  count: number;
  /** Each run of so many units has a budget of its own: the group of N:M, a row. `count` when all compete. */
  pool: number;
  members: readonly Member[];
}

/** Whether the units are the entries of the members, one after the other, so that nothing has to be gathered. */
export const areEntries = ({ members }: Units): boolean =>
  members.every(({ rowSpan, colSpan, rowStride, cols }) => rowSpan * colSpan === 1 && rowStride === cols);

/** Calls `visit` with the unit of every entry of a member, row-major. */
function forEntries(member: Member, visit: (entry: number, unit: number) => void): void {
  const { rows, cols, offset, rowSpan, rowStride, colSpan, colStride } = member;
  const unitOfColumn = Int32Array.from({ length: cols }, (_, c) => Math.floor(c / colSpan) * colStride);
  for (let r = 0; r < rows; r++) {
    const unitOfRow = offset + Math.floor(r / rowSpan) * rowStride;
    for (let c = 0; c < cols; c++) visit(r * cols + c, unitOfRow + unitOfColumn[c]);
  }
}

/** Several sets of units as one, which competes for one budget unless its pools are smaller. */
export function joinUnits(sets: readonly Units[]): Units {
  const members: Member[] = [];
  let count = 0;
  for (const units of sets) {
    for (const member of units.members) members.push({ ...member, offset: member.offset + count });
    count += units.count;
  }
  const pooled = sets.every(({ pool }) => pool === sets[0].pool) && sets.some(({ pool, count }) => pool < count);
  return { count, pool: pooled ? sets[0].pool : count, members };
}

/** f32 [count]: the Euclidean norm of the entries of each unit. Of single entries the values themselves, signs included. */
export function unitNorms(units: Units, values: Values): Float32Array {
  if (areEntries(units)) {
    const [first, ...more] = units.members;
    const own = values.get(first.name)!;
    if (more.length === 0 && own instanceof Float32Array) return own;
    const all = new Float32Array(units.count);
    for (const { name, offset } of units.members) all.set(values.get(name)!, offset);
    return all;
  }
  const sums = new Float64Array(units.count);
  for (const member of units.members) {
    const of = values.get(member.name)!;
    forEntries(member, (i, unit) => {
      sums[unit] += of[i] * of[i];
    });
  }
  const norms = new Float32Array(units.count);
  for (let unit = 0; unit < norms.length; unit++) norms[unit] = Math.sqrt(sums[unit]);
  return norms;
}

/** f64 [count]: Σ a·b over the entries of each unit. */
export function unitProducts(units: Units, a: Values, b: Values): Float64Array {
  const sums = new Float64Array(units.count);
  for (const member of units.members) {
    const [of, by] = [a.get(member.name)!, b.get(member.name)!];
    forEntries(member, (i, unit) => {
      sums[unit] += of[i] * by[i];
    });
  }
  return sums;
}

/** How many entries each unit has. */
export function unitSizes(units: Units): Int32Array {
  const sizes = new Int32Array(units.count);
  for (const member of units.members) {
    forEntries(member, (_, unit) => {
      sizes[unit]++;
    });
  }
  return sizes;
}

/**
 * Keeps the `keep` units of largest magnitude of every pool, the first of equals.
 * @param kept u8 [count], filled: 1 = keep
 * @throws UsageError on a score that is not a number
 */
export function keepLargestUnits(scores: Float32Array, pool: number, keep: number, kept: Uint8Array): void {
  if (pool <= 64 && pool < scores.length) {
    keepLargestOfGroups(scores, keep, pool, kept);
    return;
  }
  for (let start = 0; start < scores.length; start += pool) {
    const part = [scores.subarray(start, start + pool)];
    keepAbove(part, findThreshold(part, keep), [kept.subarray(start, start + pool)]);
  }
}

/**
 * Keeps the `keep` units of largest norm of every pool.
 * @param masks of ones where the units lie, or of other units of the same choice; entries of dropped units become 0
 */
export function selectUnits(units: Units, values: Values, keep: number, masks: ReadonlyMap<string, Uint8Array>): void {
  const kept = new Uint8Array(units.count);
  keepLargestUnits(unitNorms(units, values), units.pool, keep, kept);
  dropUnits(units, kept, masks);
}

/** Clears the mask of every entry of a dropped unit; other entries are left as they are. */
export function dropUnits(units: Units, kept: Uint8Array, masks: ReadonlyMap<string, Uint8Array>): void {
  const entries = areEntries(units);
  for (const member of units.members) {
    const mask = masks.get(member.name)!;
    if (entries) {
      for (let i = 0; i < mask.length; i++) mask[i] &= kept[member.offset + i];
      continue;
    }
    forEntries(member, (i, unit) => {
      if (kept[unit] === 0) mask[i] = 0;
    });
  }
}

/** u8 [count]: the units of which some entry is in the masks. */
export function unitsPresent(units: Units, masks: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const present = new Uint8Array(units.count);
  for (const member of units.members) {
    const mask = masks.get(member.name)!;
    forEntries(member, (i, unit) => {
      present[unit] |= mask[i];
    });
  }
  return present;
}

/** Calls `change` for every entry of the units, with where it is read and where it is written. */
function forPairs(
  units: Units,
  values: Values,
  out: ReadonlyMap<string, FloatArray>,
  change: (from: FloatArray, to: FloatArray) => (entry: number, unit: number) => void,
): void {
  for (const member of units.members) forEntries(member, change(values.get(member.name)!, out.get(member.name)!));
}

/** Multiplies every entry of each unit by the factor of that unit, from `values` into `out`, which may be the same. */
export function scaleUnits(
  units: Units,
  factors: ArrayLike<number>,
  values: Values,
  out: ReadonlyMap<string, FloatArray>,
): void {
  forPairs(units, values, out, (from, to) => (i, unit) => {
    to[i] = from[i] * factors[unit];
  });
}

/** Adds every entry times the factor of its unit to `out`. */
export function addScaledUnits(
  units: Units,
  factors: ArrayLike<number>,
  values: Values,
  out: ReadonlyMap<string, FloatArray>,
): void {
  forPairs(units, values, out, (from, to) => (i, unit) => {
    to[i] += from[i] * factors[unit];
  });
}

/**
 * Keeps the `keep` largest magnitudes of every `group` consecutive entries, by counting how many of its group are larger:
 * no sort, no branch that depends on order. Among equals the first stay.
 * @param weight length a multiple of `group`
 */
export function keepLargestOfGroups(weight: FloatArray, keep: number, group: number, mask: Uint8Array): void {
  const magnitudes = new Float64Array(group);
  for (let start = 0; start < weight.length; start += group) {
    for (let i = 0; i < group; i++) magnitudes[i] = Math.abs(weight[start + i]);
    for (let i = 0; i < group; i++) {
      const m = magnitudes[i];
      let larger = 0;
      for (let j = 0; j < i; j++) larger += magnitudes[j] >= m ? 1 : 0;
      for (let j = i + 1; j < group; j++) larger += magnitudes[j] > m ? 1 : 0;
      mask[start + i] = larger < keep ? 1 : 0;
    }
  }
}
