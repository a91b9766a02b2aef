import type { RoutedSlots, RouteOptions, Routing } from "./experts.js";

/** A routing that the host knows. */
export interface HostRouting extends Routing {
  readonly slots: RoutedSlots;
  /** Slots of each row, [rows, perRow], the expert chosen first before the others; `noSlot` where a row has fewer. */
  readonly slotsOfRows: Uint32Array;
}

/** Stands for a slot that a row has not. */
export const noSlot = 0xffffffff;

/** Stands for −∞, and its opposite for ∞, whose differences are no numbers. NaN makes all weights of its row NaN. */
const lowest = -3e38;

/** Scores of all experts by their logits, in f64. */
const scores: Readonly<Record<RouteOptions["score"], (logits: readonly number[]) => number[]>> = {
  softmax(logits) {
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const sizes = logits.map((v) => Math.exp(v - largest));
    const total = sizes.reduce((a, b) => a + b);
    return sizes.map((v) => v / total);
  },
  sigmoid: (logits) => logits.map((v) => 1 / (1 + Math.exp(-v))),
  relu: (logits) => logits.map((v) => Math.max(v, 0)),
};

/** Places of the `count` largest values, descending; ties: the lowest place first. */
const largest = (values: ArrayLike<number>, count: number): number[] =>
  Array.from({ length: values.length }, (_, i) => i)
    .sort((a, b) => values[b] - values[a] || a - b)
    .slice(0, count);

/** What counts for the choice: −∞ in the groups that are not looked at. */
function inKeptGroups(values: readonly number[], { count, kept }: NonNullable<RouteOptions["groups"]>): number[] {
  const size = values.length / count;
  const ofGroup = Array.from({ length: count }, (_, g) =>
    largest(values.slice(g * size, (g + 1) * size), 2).reduce((sum, e) => sum + values[g * size + e], 0),
  );
  const looked = new Set(largest(ofGroup, kept));
  return values.map((v, e) => (looked.has(Math.floor(e / size)) ? v : Number.NEGATIVE_INFINITY));
}

/** The experts of one row with their weights, the one chosen first before the others. */
function chooseForRow(row: Float32Array, options: RouteOptions): { expert: number; weight: number }[] {
  const { perRow, score, choiceBias, groups, normalise, uniform, factor = 1 } = options;
  const logits = Array.from(row, (v) => (v > lowest ? Math.min(v, -lowest) : lowest));
  const all = scores[score](logits);
  // Without bias the order of the logits is that of the scores, and no two fall together.
  const choice = choiceBias || groups ? all.map((v, e) => v + (choiceBias?.[e] ?? 0)) : logits;
  const best = largest(groups ? inKeptGroups(choice, groups) : choice, perRow);
  const isBroken = row.some(Number.isNaN);
  if (isBroken) return best.map((expert) => ({ expert, weight: Number.NaN }));
  const chosen = score === "relu" ? best.filter((e) => all[e] > 0) : best;
  // So that scores that vanish beside others still have their shares.
  const sizes =
    score === "softmax" && normalise ? scores.softmax(chosen.map((e) => logits[e])) : chosen.map((e) => all[e]);
  const total = normalise ? sizes.reduce((a, b) => a + b, 0) : 1;
  return chosen.map((expert, k) => ({
    expert,
    weight: factor * (uniform ? 1 / chosen.length : sizes[k] / total),
  }));
}

/** `Backend.route` in numbers. @param logits f32 [rows, cols] */
export function chooseExperts(logits: Float32Array, cols: number, options: RouteOptions): HostRouting {
  const rows = logits.length / cols;
  const chosen: { row: number; place: number; expert: number; weight: number }[] = [];
  for (let row = 0; row < rows; row++) {
    const own = chooseForRow(logits.subarray(row * cols, row * cols + options.experts), options);
    for (const [place, one] of own.entries()) chosen.push({ row, place, ...one });
  }
  const perRow = chosen.reduce((most, { place }) => Math.max(most, place + 1), 0);
  const order = Array.from(chosen.keys()).sort((a, b) => chosen[a].expert - chosen[b].expert || a - b);
  const slotsOfRows = new Uint32Array(rows * perRow).fill(noSlot);
  for (const [slot, n] of order.entries()) slotsOfRows[chosen[n].row * perRow + chosen[n].place] = slot;
  return {
    rows,
    perRow,
    slotCount: order.length,
    slots: {
      rows: Uint32Array.from(order, (n) => chosen[n].row),
      experts: Uint32Array.from(order, (n) => chosen[n].expert),
      weights: Float32Array.from(order, (n) => chosen[n].weight),
    },
    slotsOfRows,
  };
}

/** `Backend.routeTo` in numbers: the slots of a row come in the order in which they are given. */
export function routingOfSlots(slots: RoutedSlots, rows: number): HostRouting {
  const counts = new Uint32Array(rows);
  for (const row of slots.rows) counts[row]++;
  const perRow = counts.reduce((most, count) => Math.max(most, count), 0);
  const slotsOfRows = new Uint32Array(rows * perRow).fill(noSlot);
  counts.fill(0);
  for (const [slot, row] of slots.rows.entries()) slotsOfRows[row * perRow + counts[row]++] = slot;
  return { rows, perRow, slotCount: slots.rows.length, slots, slotsOfRows };
}
