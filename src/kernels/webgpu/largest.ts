import type { TopK } from "../backend.js";
import { topK } from "../reference/topK.js";
import type { Context } from "./context.js";
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
  const { recorder } = context;
  const perGroup = Math.max(topKChunk, k);
  const groups = Math.ceil(x.cols / perGroup);
  const candidates = groups * k;
  let found = context.scratch("top-k candidates", x.rows * candidates * 8);
  recorder.run(
    topKFirst,
    { count: x.cols, perGroup, k, offset: x.offset, stride: x.stride, outStride: candidates * 2 },
    { outs: found, source: x.memory },
    [groups, x.rows],
  );
  if (groups > 1) {
    const source = found;
    found = context.scratch("top-k", x.rows * k * 8);
    recorder.run(
      topKMerge,
      { count: candidates, perGroup: candidates, k, offset: 0, stride: candidates * 2, outStride: k * 2 },
      { outs: found, source },
      [1, x.rows],
    );
  }
  const bytes = await recorder.read(found, 0, x.rows * k * 8);
  const [words, floats] = [new Uint32Array(bytes), new Float32Array(bytes)];
  return Array.from({ length: x.rows }, (_, row) => ({
    ids: Uint32Array.from({ length: k }, (_, i) => words[2 * (row * k + i)]),
    values: Float32Array.from({ length: k }, (_, i) => floats[2 * (row * k + i) + 1]),
  }));
}
