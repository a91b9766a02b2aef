import type { AttentionOptions } from "../backend.js";
import { type KvMoves, keptValue } from "../kv.js";
import { rowsOfGroup, type SightSpec, slotsOfBlock, wordOf } from "../sight.js";
import { turnHead } from "./elementwise.js";
import type { ReferenceActivation, ReferenceKvCache, ReferenceRopeTable, ReferenceVector } from "./storage.js";

export function appendKv(
  cache: ReferenceKvCache,
  layer: number,
  k: ReferenceActivation,
  v: ReferenceActivation | undefined,
  start: number,
): void {
  for (let r = 0; r < k.rows; r++) {
    cache.keys[layer].set(k.row(r), (start + r) * k.cols);
    if (v !== undefined) cache.values[layer].set(v.row(r), (start + r) * v.cols);
  }
  for (let head = 0; head < cache.spec.layers[layer].heads; head++) {
    cache.massOf(layer, head).fill(0, start, start + k.rows);
  }
}

/** Softmax attention written out: scores of all visible slots, their maximum, the weighted mean of the values. */
export function attention(
  out: ReferenceActivation,
  q: ReferenceActivation,
  cache: ReferenceKvCache,
  layer: number,
  options: AttentionOptions,
): void {
  const { queryHeads, scale, start, softcap, sight } = options;
  const { heads, key: keyDim, value: valueDim, valueInKey } = cache.spec.layers[layer];
  const keys = cache.keys[layer];
  const values = valueInKey ? keys : cache.values[layer];
  const valueStride = valueInKey ? keyDim : valueDim;
  const sinks = (options.sinks as ReferenceVector | undefined)?.values;
  const queryHeadsPerKvHead = queryHeads / heads;

  for (let r = 0; r < q.rows; r++) {
    for (let kvHead = 0; kvHead < heads; kvHead++) {
      // What the heads that share a key head gave to a slot.
      const given = new Map<number, number>();
      for (let h = kvHead * queryHeadsPerKvHead; h < (kvHead + 1) * queryHeadsPerKvHead; h++) {
        const query = q.row(r).subarray(h * keyDim, (h + 1) * keyDim);
        const slots = visibleSlots(sight?.spec ?? { kind: "causal" }, r, h, start, q.rows);
        const scores = new Float64Array(slots.length);
        for (const [s, slot] of slots.entries()) {
          const at = (slot * heads + kvHead) * keyDim;
          let score = 0;
          for (let i = 0; i < keyDim; i++) score += query[i] * keys[at + i];
          scores[s] = softcap === undefined ? score * scale : softcap * Math.tanh((score * scale) / softcap);
        }
        const sink = sinks?.[h] ?? Number.NEGATIVE_INFINITY;
        const largest = scores.reduce((a, b) => Math.max(a, b), sink);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((a, b) => a + b, sinks === undefined ? 0 : Math.exp(sink - largest));

        const mean = new Float64Array(valueDim);
        for (const [s, slot] of slots.entries()) {
          const at = (slot * heads + kvHead) * valueStride;
          const share = weights[s] / total;
          for (let i = 0; i < valueDim; i++) mean[i] += share * values[at + i];
          const before = given.get(slot) ?? 0;
          given.set(slot, cache.spec.mass === "max" ? Math.max(before, share) : before + share);
        }
        out.row(r).set(mean, h * valueDim);
      }
      if (cache.spec.mass === undefined) continue;
      const mass = cache.massOf(layer, kvHead);
      for (const [slot, share] of given) mass[slot] += share;
    }
  }
}

function visibleSlots(spec: SightSpec, row: number, head: number, start: number, rows: number): number[] {
  if (spec.kind !== "blocks") {
    const last = spec.kind === "causal" ? start + row : start + rows - 1;
    const first = spec.kind === "causal" ? Math.max(0, last + 1 - (spec.window ?? last + 1)) : 0;
    return Array.from({ length: last + 1 - first }, (_, s) => first + s);
  }
  const slots: number[] = [];
  const group = Math.floor(row / rowsOfGroup);
  for (let i = spec.first[group]; i < spec.first[group + 1]; i++) {
    const word = wordOf(spec, spec.masks[i], row, head);
    for (let s = 0; s < slotsOfBlock; s++) {
      const slot = spec.blocks[i] * slotsOfBlock + s;
      if ((word >>> s) & 1 && slot < spec.slots) slots.push(slot);
    }
  }
  return slots;
}

export function moveKv(cache: ReferenceKvCache, layer: number, { heads, from, to, turn }: KvMoves): void {
  const spec = cache.spec.layers[layer];
  // All are taken before any is put down: they happen at once.
  const taken = Array.from(heads, (head, m) => {
    const at = from[m] * spec.heads + head;
    const key = cache.keys[layer].slice(at * spec.key, (at + 1) * spec.key);
    if (turn !== undefined) turnHead(key, turn.table as ReferenceRopeTable, turn.by[m]);
    const kept = keptValue(spec);
    const value = cache.values[layer].slice(at * kept, (at + 1) * kept);
    return { key, value, mass: cache.massOf(layer, head)[from[m]] };
  });
  for (const [m, { key, value, mass }] of taken.entries()) {
    const at = to[m] * spec.heads + heads[m];
    cache.keys[layer].set(key, at * spec.key);
    cache.values[layer].set(value, at * keptValue(spec));
    if (cache.spec.mass !== undefined) cache.massOf(layer, heads[m])[to[m]] = mass;
  }
}
