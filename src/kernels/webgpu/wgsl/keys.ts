import type { PoolOptions } from "../../backend.js";
import type { KvCodes } from "../../kvCodes.js";
import { kernel, read, readWrite } from "../kernel.js";
import { entry } from "./elementwise.js";
import { codedParams, codedReads, codesName } from "./kvCodes.js";

/** Keys of slots as rows: one thread per element. */
export const readKeys = (codes: KvCodes | undefined, width: number) =>
  kernel({
    name: `readKeys${codes ? ` ${codesName(codes)} ${width}` : ""}`,
    params: {
      ...codedParams,
      cols: "u32",
      start: "u32",
      outOffset: "u32",
      outStride: "u32",
      keyScalesAt: "u32",
      keyRingAt: "u32",
    },
    buffers: { outs: readWrite(), keys: read(codes === undefined ? "f32" : "u32") },
    code: `${entry(/* wgsl */ `
  if (i >= p.cols) { return; }
  outs[p.outOffset + row * p.outStride + i] = ${
    codes === undefined ? "keys[(p.start + row) * p.cols + i]" : `keyOne(p.start + row, i / ${width}u, i % ${width}u)`
  };`)}
${codes === undefined ? "" : codedReads("key", "keys", codes, width)}`,
  });

const joined: Readonly<Record<PoolOptions["pool"], string>> = {
  mean: "pooled + x",
  least: "min(pooled, x)",
  largest: "max(pooled, x)",
};

/** Groups of rows as one: one thread per column, one grid row per group. */
export const poolRows = (pool: PoolOptions["pool"]) =>
  kernel({
    name: `poolRows ${pool}`,
    params: {
      cols: "u32",
      rows: "u32",
      every: "u32",
      outOffset: "u32",
      outStride: "u32",
      xOffset: "u32",
      xStride: "u32",
    },
    buffers: { outs: readWrite(), xs: read() },
    code: entry(/* wgsl */ `
  if (i >= p.cols) { return; }
  let first = row * p.every;
  let end = min(first + p.every, p.rows);
  var pooled = xs[p.xOffset + first * p.xStride + i];
  for (var r = first + 1u; r < end; r += 1u) {
    let x = xs[p.xOffset + r * p.xStride + i];
    pooled = ${joined[pool]};
  }
  outs[p.outOffset + row * p.outStride + i] = pooled${pool === "mean" ? " / f32(end - first)" : ""};`),
  });

/** See `Backend.headScores`: one thread per score, one grid row per row of them. */
export const headScores = kernel({
  name: "headScores",
  params: {
    room: "u32",
    groups: "u32",
    rows: "u32",
    keys: "u32",
    queryHeads: "u32",
    group: "u32",
    keyDim: "u32",
    stride: "u32",
    accumulate: "u32",
    scale: "f32",
    outOffset: "u32",
    outStride: "u32",
    qOffset: "u32",
    qStride: "u32",
    kOffset: "u32",
    kStride: "u32",
  },
  buffers: { outs: readWrite(), qs: read(), ks: read() },
  code: entry(/* wgsl */ `
  let head = i / p.groups;
  let b = i % p.groups;
  if (head >= p.queryHeads) { return; }
  let last = row * p.stride + p.stride - 1u;
  // Both groups may be cut off.
  let least = last - min(last, p.rows - 1u);
  let most = min(p.stride, p.keys - b * p.stride);
  var sum = 0.0;
  for (var t = least; t < most; t += 1u) {
    let q = p.qOffset + (last - t) * p.qStride + head * p.keyDim;
    let k = p.kOffset + (b * p.stride + t) * p.kStride + head / p.group * p.keyDim;
    for (var d = 0u; d < p.keyDim; d += 1u) { sum = fma(qs[q + d], ks[k + d], sum); }
  }
  let at = p.outOffset + row * p.outStride + head * p.room + b;
  outs[at] = p.scale * sum + select(0.0, outs[at], p.accumulate == 1u);`),
});
