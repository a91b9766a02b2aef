import type { HeadScoreOptions, PoolOptions } from "../backend.js";
import { codedPlaces } from "./cached.js";
import type { Context } from "./context.js";
import { at } from "./elementwise.js";
import { made } from "./made.js";
import type { GpuActivation, GpuKvCache } from "./storage.js";
import { elementGroups } from "./wgsl/elementwise.js";
import * as kernels from "./wgsl/keys.js";
import { codesName } from "./wgsl/kvCodes.js";

/** Kernels by what they were made for. */
const readers = new Map<string, ReturnType<typeof kernels.readKeys>>();
const pools = {
  mean: kernels.poolRows("mean"),
  least: kernels.poolRows("least"),
  largest: kernels.poolRows("largest"),
} as const;

/** Enqueues `Backend.readKeys`. */
export function readKeys(
  { recorder }: Context,
  out: GpuActivation,
  cache: GpuKvCache,
  layer: number,
  start: number,
): void {
  const { codes, layers } = cache.spec;
  const { key } = layers[layer];
  const kernel = made(readers, codes === undefined ? "" : `${codesName(codes)} ${key}`, () =>
    kernels.readKeys(codes, key),
  );
  recorder.run(
    kernel,
    {
      ...codedPlaces(cache, layer),
      cols: out.cols,
      start,
      ...at("out", out),
    },
    { outs: out.memory, keys: cache.keys[layer] },
    [elementGroups(out.cols), out.rows],
  );
}

/** Enqueues `Backend.poolRows`. */
export function poolRows(
  { recorder }: Context,
  out: GpuActivation,
  x: GpuActivation,
  { pool, every }: PoolOptions,
): void {
  recorder.run(
    pools[pool],
    {
      cols: x.cols,
      rows: x.rows,
      every,
      ...at("out", out),
      ...at("x", x),
    },
    { outs: out.memory, xs: x.memory },
    [elementGroups(x.cols), out.rows],
  );
}

/** Enqueues `Backend.headScores`. */
export function headScores(
  { recorder }: Context,
  out: GpuActivation,
  q: GpuActivation,
  k: GpuActivation,
  { queryHeads, kvHeads, scale, stride = 1, accumulate = false }: HeadScoreOptions,
): void {
  const groups = Math.ceil(k.rows / stride);
  recorder.run(
    kernels.headScores,
    {
      room: out.cols / queryHeads,
      groups,
      rows: q.rows,
      keys: k.rows,
      queryHeads,
      group: queryHeads / kvHeads,
      keyDim: k.cols / kvHeads,
      stride,
      accumulate: Number(accumulate),
      scale,
      ...at("out", out),
      ...at("q", q),
      ...at("k", k),
    },
    { outs: out.memory, qs: q.memory, ks: k.memory },
    [elementGroups(queryHeads * groups), out.rows],
  );
}
