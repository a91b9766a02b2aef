import type { AttentionOptions } from "../backend.js";
import { pairPlaces } from "../handles.js";
import { type KvCacheSpec, type KvMoves, keptValue } from "../kv.js";
import * as layout from "./layout.js";
import type { KvPlace, ProgramActivation, ProgramRopeTable, ProgramSight, ProgramVector } from "./storage.js";

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
  v: ProgramActivation | undefined,
  start: number,
) {
  const { arena, ...parts } = place;
  const kept = spec.layers[layer];
  arena.record("appendKv", {
    k: k.readIn(arena),
    kStride: k.stride,
    v: v?.readIn(arena) ?? 0,
    vStride: v?.stride ?? 0,
    rows: k.rows,
    kvHeads: kept.heads,
    keyDim: kept.key,
    valueDim: keptValue(kept),
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
  { queryHeads, scale, start, softcap = 0, sinks }: AttentionOptions,
  sight: ProgramSight,
  threads: number,
): void {
  const { arena, keys, values, mass } = place;
  const { heads: kvHeads, key: keyDim, value: valueDim, valueInKey } = spec.layers[layer];
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
    valueStride: valueInKey ? keyDim : valueDim,
    values: valueInKey ? keys : values,
    sinks: (sinks as ProgramVector | undefined)?.constant.readIn(arena) ?? 0,
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
  const kept = spec.layers[layer];
  const table = turn?.table as ProgramRopeTable | undefined;
  const moves = Array.from(heads, (head, m) => ({ head, from: from[m], to: to[m], turn: turn?.by[m] ?? 0 }));
  for (let first = 0; first < moves.length; first += listedMoves) {
    arena.record("moveKv", {
      ...parts,
      keyDim: kept.key,
      valueDim: keptValue(kept),
      slots: spec.slots,
      ...(table === undefined ? { first: 0, half: 0, step: 0, apart: 0 } : pairPlaces(table)),
      cos: table?.cos.readIn(arena) ?? 0,
      sin: table?.sin.readIn(arena) ?? 0,
      moves: moves.slice(first, first + listedMoves),
    });
  }
}
