import type { AttentionOptions, KvCacheSpec } from "../backend.js";
import * as layout from "./layout.js";
import type { KvPlace, ProgramActivation } from "./storage.js";

/** Records `Backend.appendKv` in the memory where the layer's keys and values lie. */
export function appendKv(place: KvPlace, spec: KvCacheSpec, k: ProgramActivation, v: ProgramActivation, start: number) {
  const { arena, keys, values } = place;
  const { kvHeads, headDim, capacity } = spec;
  arena.record("appendKv", {
    k: k.readIn(arena),
    kStride: k.stride,
    v: v.readIn(arena),
    vStride: v.stride,
    rows: k.rows,
    kvHeads,
    headDim,
    keys,
    values,
    capacity,
    start,
  });
}

/** Records `Backend.attention`, likewise. */
export function attention(
  out: ProgramActivation,
  q: ProgramActivation,
  place: KvPlace,
  spec: KvCacheSpec,
  options: AttentionOptions,
  threads: number,
): void {
  const { arena, keys, values } = place;
  const { kvHeads, headDim, capacity } = spec;
  const scratchBytes = layout.attentionScoreBytes + 8 * headDim * 4;
  const scratch = arena.scratch(threads * scratchBytes);
  arena.record("attention", {
    // Read before `out` is written: it may be `q`.
    q: q.readIn(arena),
    qStride: q.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: q.rows,
    queryHeads: options.queryHeads,
    kvHeads,
    headDim,
    keys,
    values,
    capacity,
    start: options.start,
    window: options.window ?? 0,
    scale: options.scale,
    softcap: options.softcap ?? 0,
    scratch,
    scratchBytes,
  });
}
