import { softmax } from "./blockChoice.js";
import { type Look, shapeOf } from "./dynamic.js";

/** What the last rows of a pass give to every slot: softmax shares. */
export interface LastQueries {
  /** Rows of the pass, from `first` on. */
  readonly first: number;
  readonly count: number;
  /** f32 [slots] */
  shares(row: number, head: number): Float32Array;
}

/** Keys that are scored at once. */
const keysAtOnce = 4096;

/** Full attention of the last `most` rows of a pass. */
export async function lastQueries(look: Look, most: number): Promise<LastQueries> {
  const { backend, cache, layer, q, slot, queryHeads, scale, scratch } = look;
  const { slots, kvHeads, keyCols } = shapeOf(look);
  const count = Math.min(most, q.rows);
  const first = q.rows - count;
  const all = new Float32Array(count * queryHeads * slots);
  const room = Math.ceil(Math.min(keysAtOnce, slots) / 4) * 4;
  for (let from = 0; from < slots; from += keysAtOnce) {
    const n = Math.min(keysAtOnce, slots - from);
    const keys = scratch("keys", n, keyCols);
    const scores = scratch("scores", count, queryHeads * room);
    backend.readKeys(keys, cache, layer, from);
    backend.headScores(scores, q.rowRange(first, count), keys, { queryHeads, kvHeads, scale });
    const read = await backend.read(scores);
    for (let i = 0; i < count * queryHeads; i++) all.set(read.subarray(i * room, i * room + n), i * slots + from);
  }
  const of = (row: number, head: number) => {
    const at = ((row - first) * queryHeads + head) * slots;
    return all.subarray(at, at + slots);
  };
  for (let row = first; row < q.rows; row++) {
    for (let head = 0; head < queryHeads; head++) softmax(of(row, head), slot + row + 1);
  }
  return { first, count, shares: of };
}
