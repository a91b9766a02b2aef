import type { Activation } from "../../kernels/index.js";
import { type Look, shapeOf } from "./dynamic.js";

/** Columns that a head has among scores: kernels write four at a time. */
export const padded = (columns: number): number => Math.ceil(columns / 4) * 4;

/**
 * Scores of rows of a pass with all keys, of which `atOnce` groups are read at a time: f32 [⌈rows / stride⌉][queryHeads]
 * [⌈slots / stride⌉], with a stride above 1 the means along antidiagonals.
 */
export async function scoresOf(
  look: Look,
  q: Activation,
  { atOnce, stride = 1 }: { atOnce: number; stride?: number },
): Promise<Float32Array> {
  const { backend, cache, layer, queryHeads, scale, scratch } = look;
  const { slots, kvHeads, keyCols } = shapeOf(look);
  const [rows, groups] = [Math.ceil(q.rows / stride), Math.ceil(slots / stride)];
  const all = new Float32Array(rows * queryHeads * groups);
  const room = padded(Math.min(atOnce, groups));
  for (let from = 0; from < groups; from += atOnce) {
    const n = Math.min(atOnce, groups - from);
    const keys = scratch("keys", Math.min(slots, (from + n) * stride) - from * stride, keyCols);
    const scores = scratch("scores", rows, queryHeads * room);
    backend.readKeys(keys, cache, layer, from * stride);
    backend.headScores(scores, q, keys, { queryHeads, kvHeads, scale: scale / stride, stride });
    const read = await backend.read(scores);
    for (let i = 0; i < rows * queryHeads; i++) all.set(read.subarray(i * room, i * room + n), i * groups + from);
  }
  return all;
}
