import type { AttentionOptions } from "../backend.js";
import type { KvCacheSpec, KvMoves } from "../kv.js";
import * as layout from "./layout.js";
import type { KvPlace, ProgramActivation, ProgramRopeTable, ProgramSight } from "./storage.js";

/** A layer of a cache: where it lies, and what the cache is. */
export interface CachedLayer {
  readonly place: KvPlace;
  readonly spec: KvCacheSpec;
  readonly layer: number;
}

/** Records `Backend.appendKv` in the memory where the layer's keys and values lie. */
export function appendKv(
  { place, spec, layer }: CachedLayer,
  k: ProgramActivation,
  v: ProgramActivation,
  start: number,
) {
  const { arena, ...parts } = place;
  const { heads, key, value } = spec.layers[layer];
  arena.record("appendKv", {
    k: k.readIn(arena),
    kStride: k.stride,
    v: v.readIn(arena),
    vStride: v.stride,
    rows: k.rows,
    kvHeads: heads,
    keyDim: key,
    valueDim: value,
    ...parts,
    slots: spec.slots,
    start,
  });
}

/** Records `Backend.attention`, likewise. */
export function attention(
  out: ProgramActivation,
  q: ProgramActivation,
  { place, spec, layer }: CachedLayer,
  { queryHeads, scale, start, softcap = 0 }: AttentionOptions,
  sight: ProgramSight,
  threads: number,
): void {
  const { arena, keys, values, mass } = place;
  const { heads: kvHeads, key: keyDim, value: valueDim } = spec.layers[layer];
  const scratchBytes = layout.attentionScoreBytes + 4 * 4 * (keyDim + valueDim);
  const stateBytes = spec.mass === undefined ? 0 : 8 * q.rows * queryHeads;
  const states = arena.scratch(stateBytes + threads * scratchBytes);
  const { rows, stride: qStride } = q;
  const { slots } = spec;
  // Read before `out` is written: it may be `q`.
  const pass = { q: q.readIn(arena), qStride, rows, queryHeads, kvHeads, keyDim, keys, slots, scale, softcap };
  const seen = sight.operands(arena, start, rows);
  arena.record("attention", {
    ...pass,
    ...seen,
    out: out.writeIn(arena),
    outStride: out.stride,
    valueDim,
    values,
    states: spec.mass === undefined ? 0 : states,
    scratch: states + stateBytes,
    scratchBytes,
  });
  if (spec.mass === undefined) return;
  arena.record("attentionMass", { ...pass, ...seen, mass, states, largest: spec.mass === "max" });
}

/** Moves are written into the program, which has an end. */
const listedMoves = 1024;

/** Records `Backend.moveKv`, likewise. */
export function moveKv({ place, spec, layer }: CachedLayer, { heads, from, to, turn }: KvMoves): void {
  const { arena, ...parts } = place;
  const { key, value } = spec.layers[layer];
  const table = turn?.table as ProgramRopeTable | undefined;
  const moves = Array.from(heads, (head, m) => ({ head, from: from[m], to: to[m], turn: turn?.by[m] ?? 0 }));
  for (let first = 0; first < moves.length; first += listedMoves) {
    arena.record("moveKv", {
      ...parts,
      keyDim: key,
      valueDim: value,
      slots: spec.slots,
      cos: table?.cos.readIn(arena) ?? 0,
      sin: table?.sin.readIn(arena) ?? 0,
      moves: moves.slice(first, first + listedMoves),
    });
  }
}
