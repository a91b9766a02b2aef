import { slotsOfBlock } from "../../kernels/index.js";
import { count } from "../parameters.js";
import { BlockChoice, softmax } from "./blockChoice.js";
import { dynamicPattern, type Look, promptSeeker, shapeOf } from "./dynamic.js";
import { largest } from "./largest.js";
import { padded } from "./scores.js";

/** Rows, and slots, whose mean stands for them. */
const block = 2 * slotsOfBlock;

/**
 * Blocks of MInference (2407.02490): the mean of 64 queries is held against the mean of 64 keys, and of a prompt each block
 * of queries sees the blocks of keys with the largest scores, and its own.
 */
export const blockSparse = dynamicPattern({
  summary: "of a prompt the blocks whose mean key fits the mean query (MInference)",
  parameters: { blocks: count("blocks of 64 positions, the own included", 1, 16) },
  seek: ({ blocks }) =>
    promptSeeker(async (look) => {
      if (look.slot + look.q.rows <= blocks * block) return undefined;
      const choice = new BlockChoice(look);
      const scores = await blockScores(look);
      for (let head = 0; head < look.queryHeads; head++) addBlocks(choice, head, scores, look, blocks);
      return choice;
    }),
});

/** Scores of mean queries with mean keys, f32 [blocks of rows][queryHeads][room]. */
export async function blockScores(look: Look): Promise<{ values: Float32Array; room: number }> {
  const { backend, cache, layer, q, queryHeads, scale, scratch } = look;
  const { slots, kvHeads, keyCols } = shapeOf(look);
  const [rows, blocks] = [Math.ceil(q.rows / block), Math.ceil(slots / block)];
  const room = padded(blocks);
  const meanKeys = scratch("mean keys", blocks, keyCols);
  for (let from = 0; from < blocks; from += 64) {
    const count = Math.min(64, blocks - from);
    const keys = scratch("keys", Math.min(slots, (from + count) * block) - from * block, keyCols);
    backend.readKeys(keys, cache, layer, from * block);
    backend.poolRows(meanKeys.rowRange(from, count), keys, { pool: "mean", every: block });
  }
  const meanQueries = scratch("mean queries", rows, q.cols);
  backend.poolRows(meanQueries, q, { pool: "mean", every: block });
  const scores = scratch("block scores", rows, queryHeads * room);
  backend.headScores(scores, meanQueries, meanKeys, { queryHeads, kvHeads, scale });
  return { values: await backend.read(scores), room };
}

/** Lets a head see its blocks. */
export function addBlocks(
  choice: BlockChoice,
  head: number,
  { values, room }: { values: Float32Array; room: number },
  look: Look,
  most: number,
): void {
  const { q, slot, queryHeads } = look;
  for (let row = 0; row * block < q.rows; row++) {
    const lastRow = Math.min(q.rows, (row + 1) * block) - 1;
    const visible = Math.floor((slot + lastRow) / block) + 1;
    const scores = values.slice((row * queryHeads + head) * room, (row * queryHeads + head) * room + visible);
    softmax(scores, visible);
    // What rows of the block are themselves in.
    const own = Math.floor((slot + row * block) / block);
    scores.fill(Number.POSITIVE_INFINITY, own);
    choice.addBlocks(row * block, block, head, largest(scores, Math.max(most, visible - own)));
  }
}
