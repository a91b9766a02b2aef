import type { AttentionOptions } from "../backend.js";
import { countOf, type KvMoves } from "../kv.js";
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
  const { heads, key, value } = cache.spec.layers[layer];
  const [keys, values] = [cache.keys[layer], cache.values[layer]];
  if (cache.spec.codes?.kivi !== undefined) {
    const { from, to } = cache.coded.advance(layer, start, k.rows);
    for (const rows of [keys, values]) rows.code(from, to);
  }
  for (let r = 0; r < k.rows; r++) {
    for (let head = 0; head < heads; head++) {
      keys.put(start + r, head, k.row(r).subarray(head * key, (head + 1) * key));
      if (v !== undefined) values.put(start + r, head, v.row(r).subarray(head * value, (head + 1) * value));
    }
  }
  for (let head = 0; head < heads; head++) {
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
          const key = keys.get(slot, kvHead);
          let score = 0;
          for (let i = 0; i < keyDim; i++) score += query[i] * key[i];
          scores[s] = softcap === undefined ? score * scale : softcap * Math.tanh((score * scale) / softcap);
        }
        const sink = sinks?.[h] ?? Number.NEGATIVE_INFINITY;
        const largest = scores.reduce((a, b) => Math.max(a, b), sink);
        const weights = scores.map((score) => Math.exp(score - largest));
        const total = weights.reduce((a, b) => a + b, sinks === undefined ? 0 : Math.exp(sink - largest));

        const mean = new Float64Array(valueDim);
        for (const [s, slot] of slots.entries()) {
          const value = values.get(slot, kvHead);
          const share = weights[s] / total;
          for (let i = 0; i < valueDim; i++) mean[i] += share * value[i];
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

export function copyKv(from: ReferenceKvCache, to: ReferenceKvCache, slots: number | readonly number[]): void {
  for (const [layer, { heads }] of from.spec.layers.entries()) {
    for (const part of ["keys", "values"] as const) {
      for (let slot = 0; slot < countOf(slots, layer); slot++) {
        for (let head = 0; head < heads; head++) to[part][layer].put(slot, head, from[part][layer].get(slot, head));
      }
    }
  }
}

export function moveKv(cache: ReferenceKvCache, layer: number, { heads, from, to, turn }: KvMoves): void {
  const [keys, values] = [cache.keys[layer], cache.values[layer]];
  // All are taken before any is put down: they happen at once.
  const taken = Array.from(heads, (head, m) => {
    const key = keys.take(from[m], head);
    if (turn !== undefined) turnHead(key as Float32Array, turn.table as ReferenceRopeTable, turn.by[m]);
    return { key, value: values.take(from[m], head), mass: cache.massOf(layer, head)[from[m]] };
  });
  for (const [m, { key, value, mass }] of taken.entries()) {
    keys.restore(to[m], heads[m], key);
    values.restore(to[m], heads[m], value);
    if (cache.spec.mass !== undefined) cache.massOf(layer, heads[m])[to[m]] = mass;
  }
}
