import type { HeadScoreOptions, PoolOptions } from "../backend.js";
import { slotsOf } from "../kv.js";
import { type CachedLayer, codedParts } from "./attention.js";
import * as layout from "./layout.js";
import type { ProgramActivation } from "./storage.js";

/** Records `Backend.readKeys` in the memory where the layer lies. */
export function readKeys(out: ProgramActivation, cached: CachedLayer, start: number, threads: number): void {
  const { place, spec, layer } = cached;
  const { arena, keys } = place;
  const { heads, key } = spec.layers[layer];
  const { codedHeadsBytes: scratchBytes } = layout;
  arena.record("readKeys", {
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: out.rows,
    start,
    kvHeads: heads,
    keyDim: key,
    keys,
    slots: slotsOf(spec, layer),
    ...codedParts(cached),
    scratch: arena.scratch(threads * scratchBytes),
    scratchBytes,
  });
}

const poolCode = { mean: layout.poolMean, least: layout.poolLeast, largest: layout.poolLargest } as const;

export function poolRows(out: ProgramActivation, x: ProgramActivation, { pool, every }: PoolOptions): void {
  const arena = x.block.home;
  arena.record("poolRows", {
    x: x.readIn(arena),
    xStride: x.stride,
    out: out.writeIn(arena),
    outStride: out.stride,
    rows: x.rows,
    cols: x.cols,
    every,
    pool: poolCode[pool],
  });
}

export function headScores(
  out: ProgramActivation,
  q: ProgramActivation,
  k: ProgramActivation,
  { queryHeads, kvHeads, scale, stride = 1, accumulate = false }: HeadScoreOptions,
): void {
  const arena = k.block.home;
  arena.record("headScores", {
    q: q.readIn(arena),
    qStride: q.stride,
    rows: q.rows,
    k: k.readIn(arena),
    kStride: k.stride,
    keys: k.rows,
    out: accumulate ? out.readIn(arena) : out.writeIn(arena),
    outStride: out.stride,
    room: out.cols / queryHeads,
    queryHeads,
    kvHeads,
    keyDim: k.cols / kvHeads,
    stride,
    scale,
    accumulate,
  });
}
