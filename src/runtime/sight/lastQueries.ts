import { softmax } from "./blockChoice.js";
import { type Look, shapeOf } from "./dynamic.js";
import { scoresOf } from "./scores.js";

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
  const { q, slot, queryHeads } = look;
  const { slots } = shapeOf(look);
  const count = Math.min(most, q.rows);
  const first = q.rows - count;
  const all = await scoresOf(look, q.rowRange(first, count), { atOnce: keysAtOnce });
  const of = (row: number, head: number) => {
    const at = ((row - first) * queryHeads + head) * slots;
    return all.subarray(at, at + slots);
  };
  for (let row = first; row < q.rows; row++) {
    for (let head = 0; head < queryHeads; head++) softmax(of(row, head), slot + row + 1);
  }
  return { first, count, shares: of };
}
