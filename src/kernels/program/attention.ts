import type { AttentionOptions } from "../backend.js";
import type { CodedSlots } from "../codedSlots.js";
import { pairPlaces } from "../handles.js";
import { type KvCacheSpec, type KvLayer, type KvMoves, keptValue, slotsOf } from "../kv.js";
import { groupShifts, kiviGroup, ringSlots, rowWords } from "../kvCodes.js";
import { slotsOfBlock } from "../sight.js";
import type { Operands } from "./encode.js";
import * as layout from "./layout.js";
import type { KvPlace, ProgramActivation, ProgramRopeTable, ProgramSight, ProgramVector } from "./storage.js";

/** A layer of a cache: where it lies, and what the cache is. */
export interface CachedLayer {
  readonly place: KvPlace;
  readonly spec: KvCacheSpec;
  readonly layer: number;
  readonly coded: CodedSlots;
}

/** Records `Backend.appendKv` in the memory where the layer's keys and values lie. */
export function appendKv(
  cached: CachedLayer,
  k: ProgramActivation,
  v: ProgramActivation | undefined,
  start: number,
): void {
  const { place, spec, layer, coded } = cached;
  const { codes } = spec;
  if (codes === undefined) appendRows(cached, place, k, v, start, slotsOf(spec, layer));
  else if (codes.kivi === undefined) {
    const { arena } = place;
    const rows = { ring: 0, start, rows: k.rows };
    const { key, value } = spec.layers[layer];
    code(cached, "key", { ...rows, source: k.readIn(arena), rowStride: k.stride, headStride: key });
    if (v === undefined) return;
    code(cached, "value", { ...rows, source: v.readIn(arena), rowStride: v.stride, headStride: value });
  } else {
    const ring = ringSlots(codes);
    const { from, to } = coded.advance(layer, start, k.rows);
    if (to > from) {
      const { key } = spec.layers[layer];
      const value = keptValue(spec.layers[layer]);
      const rows = { ring, start: from, rows: to - from };
      code(cached, "key", { ...rows, source: place.keyRing, rowStride: key, headStride: ring * key });
      if (value > 0)
        code(cached, "value", { ...rows, source: place.valueRing, rowStride: value, headStride: ring * value });
    }
    // A ring may end amid the rows.
    const rings = { keys: place.keyRing, values: place.valueRing, mass: 0 };
    for (let row = 0; row < k.rows; ) {
      const at = (start + row) % ring;
      const rows = Math.min(k.rows - row, ring - at);
      appendRows(cached, rings, k.rowRange(row, rows), v?.rowRange(row, rows), at, ring);
      row += rows;
    }
  }
}

function appendRows(
  { place: { arena }, spec, layer }: CachedLayer,
  { keys, values, mass }: Pick<KvPlace, "keys" | "values" | "mass">,
  k: ProgramActivation,
  v: ProgramActivation | undefined,
  start: number,
  slots: number,
): void {
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
    keys,
    values,
    mass,
    slots,
    start,
  });
}

type Source = Pick<Operands<"codeKv">, "source" | "rowStride" | "headStride" | "ring" | "start" | "rows">;

/** Records that f32 rows become codes. */
function code({ place, spec, layer }: CachedLayer, part: "key" | "value", source: Source): void {
  const { heads, [part]: width } = spec.layers[layer];
  const byChannel = groupShifts(spec.codes!, part).tokenShift > 0;
  place.arena.record("codeKv", {
    ...source,
    kvHeads: heads,
    width,
    codes: part === "key" ? place.keys : place.values,
    scales: part === "key" ? place.keyScales : place.valueScales,
    slots: slotsOf(spec, layer),
    bits: spec.codes!.bits,
    byChannel,
    channels: spec.codes!.kivi === undefined ? width : byChannel ? 1 : kiviGroup,
    // Emptied once, with the keys; groups of several slots have no mass.
    mass: part === "key" ? place.mass : 0,
  });
}

/** What records say of entries that are codes. */
export function codedParts({ place, spec, layer, coded }: CachedLayer) {
  const { codes } = spec;
  const { keyScales, keyRing } = place;
  if (codes === undefined) return { codeBits: 0, kivi: false, coded: 0, ring: 0, keyScales, keyRing };
  const { bits, kivi } = codes;
  return {
    codeBits: bits,
    kivi: kivi !== undefined,
    coded: coded.of(layer),
    ring: ringSlots(codes),
    keyScales,
    keyRing,
  };
}

/** Records `Backend.attention`, likewise. */
export function attention(
  out: ProgramActivation,
  q: ProgramActivation,
  cached: CachedLayer,
  { queryHeads, scale, start, softcap = 0, sinks }: AttentionOptions,
  sight: ProgramSight,
  threads: number,
): void {
  const { place, spec, layer } = cached;
  const { arena, keys, values, mass, valueScales, valueRing } = place;
  const { heads: kvHeads, key: keyDim, value: valueDim, valueInKey } = spec.layers[layer];
  const unpacked = (rows: number, width: number) =>
    spec.codes === undefined ? 0 : layout.codedHeadsBytes + 4 * rows * width;
  const fours = Math.min(layout.attentionFours, Math.ceil((q.rows * queryHeads) / kvHeads / 4));
  const scratchBytes =
    layout.attentionScoreBytes +
    fours * 4 * 4 * (keyDim + valueDim) +
    unpacked(layout.attentionBlockKeys, keyDim + valueDim);
  const massBytes = unpacked(slotsOfBlock, keyDim);
  const stateBytes = spec.mass === undefined ? 0 : 8 * q.rows * queryHeads;
  const states = arena.scratch(stateBytes + threads * Math.max(scratchBytes, massBytes));
  const seen = sight.operands(arena, start, q.rows);
  const coded = codedParts(cached);
  // One literal: to spread so many fields takes longer than to compute attention of one row over a short context.
  const operands = {
    // Read before `out` is written: it may be `q`.
    q: q.readIn(arena),
    qStride: q.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: q.rows,
    queryHeads,
    kvHeads,
    keyDim,
    valueDim,
    valueStride: valueInKey ? keyDim : valueDim,
    keys,
    values: valueInKey ? keys : values,
    slots: slotsOf(spec, layer),
    codeBits: coded.codeBits,
    kivi: coded.kivi,
    coded: coded.coded,
    ring: coded.ring,
    keyScales: coded.keyScales,
    keyRing: coded.keyRing,
    valueScales,
    valueRing,
    causal: seen.causal,
    window: seen.window,
    start: seen.start,
    used: seen.used,
    tableOfHead: seen.tableOfHead,
    lists: seen.lists,
    blocks: seen.blocks,
    bits: seen.bits,
    tables: seen.tables,
    scale,
    softcap,
    sinks: (sinks as ProgramVector | undefined)?.constant.readIn(arena) ?? 0,
    states: spec.mass === undefined ? 0 : states,
    scratch: states + stateBytes,
    scratchBytes,
  };
  arena.record("attention", operands);
  if (spec.mass === undefined) return;
  arena.record("attentionMass", { ...operands, scratchBytes: massBytes, mass, largest: spec.mass === "max" });
}

/** Copies the first slots of every head of a layer, at once: nothing may be recorded that writes them. */
export function copyKv(
  kept: KvLayer,
  from: KvPlace,
  fromSlots: number,
  to: KvPlace,
  toSlots: number,
  slots: number,
): void {
  const copy = (part: "keys" | "values", width: number) => {
    for (let head = 0; head < kept.heads; head++) {
      const source = from.arena.floats(from[part] + 4 * head * fromSlots * width, slots * width);
      to.arena.floats(to[part] + 4 * head * toSlots * width, slots * width).set(source);
    }
  };
  copy("keys", kept.key);
  if (keptValue(kept) > 0) copy("values", kept.value);
}

/** Moves are written into the program, which has an end. */
const listedMoves = 1024;

/** Records `Backend.moveKv`, likewise. */
export function moveKv({ place, spec, layer }: CachedLayer, { heads, from, to, turn }: KvMoves): void {
  const { arena, keys, values, mass, keyScales, valueScales } = place;
  const kept = spec.layers[layer];
  const bytes = (width: number) => 4 * (spec.codes === undefined ? width : rowWords(spec.codes.bits, width));
  const table = turn?.table as ProgramRopeTable | undefined;
  const moves = Array.from(heads, (head, m) => ({ head, from: from[m], to: to[m], turn: turn?.by[m] ?? 0 }));
  for (let first = 0; first < moves.length; first += listedMoves) {
    arena.record("moveKv", {
      keyBytes: bytes(kept.key),
      valueBytes: bytes(keptValue(kept)),
      keys,
      values,
      keyScales,
      valueScales,
      mass,
      slots: slotsOf(spec, layer),
      ...(table === undefined ? { first: 0, half: 0, step: 0, apart: 0 } : pairPlaces(table)),
      cos: table?.cos.readIn(arena) ?? 0,
      sin: table?.sin.readIn(arena) ?? 0,
      moves: moves.slice(first, first + listedMoves),
    });
  }
}
