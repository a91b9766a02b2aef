import type { TopK } from "../backend.js";
import { topK } from "../reference/topK.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import { type GpuActivation, readRows } from "./storage.js";
import { topKChunk, topKFirst, topKMerge } from "./wgsl/topK.js";

/** Each of the k takes a round on the GPU: beyond so many, reading the rows and sorting them is faster. */
const mostRounds = 64;

/** The k largest values of every row; found on the GPU, for small k, so that only they are read back. */
export async function largest(context: Context, x: GpuActivation, k: number): Promise<TopK[]> {
  if (k > mostRounds) {
    const values = await readRows(context, x);
    return Array.from({ length: x.rows }, (_, r) => topK(values.subarray(r * x.cols, (r + 1) * x.cols), k));
  }
  const found = context.scratch("top-k", x.rows * k * pairBytes);
  enqueueLargest(context, x, k, found);
  return pairsOf(await context.recorder.read(found, 0, x.rows * k * pairBytes), x.rows, k);
}

/** An id and the bits of a value. */
export const pairBytes = 8;

/** Puts the k largest of every row into `out`, as pairs. */
export function enqueueLargest(context: Context, x: GpuActivation, k: number, out: GpuMemory): void {
  const { recorder } = context;
  const perGroup = Math.max(topKChunk, k);
  const groups = Math.ceil(x.cols / perGroup);
  const candidates = groups * k;
  const first = groups === 1 ? out : context.scratch("top-k candidates", x.rows * candidates * pairBytes);
  recorder.run(
    topKFirst,
    { count: x.cols, perGroup, k, offset: x.offset, stride: x.stride, outStride: candidates * 2 },
    { outs: first, source: x.memory },
    [groups, x.rows],
  );
  if (groups === 1) return;
  recorder.run(
    topKMerge,
    { count: candidates, perGroup: candidates, k, offset: 0, stride: candidates * 2, outStride: k * 2 },
    { outs: out, source: first },
    [1, x.rows],
  );
}

export function pairsOf(bytes: ArrayBuffer, rows: number, k: number): TopK[] {
  const [words, floats] = [new Uint32Array(bytes), new Float32Array(bytes)];
  return Array.from({ length: rows }, (_, row) => ({
    ids: Uint32Array.from({ length: k }, (_, i) => words[2 * (row * k + i)]),
    values: Float32Array.from({ length: k }, (_, i) => floats[2 * (row * k + i) + 1]),
  }));
}
