import { UsageError } from "../../core/index.js";
import { slotsOfBlock } from "../../kernels/index.js";
import { count } from "../parameters.js";
import { BlockChoice, softmax } from "./blockChoice.js";
import { dynamicPattern, type Look, promptSeeker, shapeOf } from "./dynamic.js";
import { scoresOf } from "./scores.js";

/** Key groups that are scored at once. */
const groupsAtOnce = 512;

/**
 * XAttention (2503.16428): sums along the antidiagonals of small squares of scores tell how much a block is worth; each block
 * of queries of a prompt sees the fewest blocks of keys that have the asked share of it together, and its own.
 */
export const xattention = dynamicPattern({
  summary: "of a prompt the fewest blocks with most of the attention, by antidiagonals (XAttention)",
  parameters: {
    share: count("percent of the attention, as estimated, that a block of queries sees", 1, 90),
    stride: count("side of the squares, a power of two up to 32", 1, 8),
    block: count("positions of a block, a multiple of 32", slotsOfBlock, 128),
    sinks: count("first blocks that all see", 0, 1),
  },
  seek: ({ share, stride, block, sinks }) => {
    if (![1, 2, 4, 8, 16, 32].includes(stride)) throw new UsageError(`xattention: a stride of ${stride}`);
    if (block % slotsOfBlock !== 0) throw new UsageError(`xattention: blocks of ${block} positions`);
    if (share > 100) throw new UsageError(`xattention: a share of ${share} percent`);
    return promptSeeker(async (look) => {
      if (share === 100 || look.slot + look.q.rows <= 2 * block) return undefined;
      const choice = new BlockChoice(look);
      const worth = await blockWorth(look, stride, block);
      for (let head = 0; head < look.queryHeads; head++) {
        for (let row = 0; row * block < look.q.rows; row++) {
          const seen = fewest(worth(row, head), share / 100, [sinks, Math.floor((look.slot + row * block) / block)]);
          choice.addBlocks(row * block, block, head, seen);
        }
      }
      return choice;
    });
  },
});

/** What a block of queries is estimated to give to each block of keys: f64 [blocks] by its number and a head. */
async function blockWorth(
  look: Look,
  stride: number,
  block: number,
): Promise<(row: number, head: number) => Float64Array> {
  const { q, slot, queryHeads } = look;
  const { slots } = shapeOf(look);
  const [rows, groups] = [Math.ceil(q.rows / stride), Math.ceil(slots / stride)];
  const all = await scoresOf(look, q, { atOnce: groupsAtOnce, stride });
  const [rowsPerBlock, groupsPerBlock] = [block / stride, block / stride];
  return (row, head) => {
    const worth = new Float64Array(Math.ceil(slots / block));
    for (let a = row * rowsPerBlock; a < Math.min(rows, (row + 1) * rowsPerBlock); a++) {
      const at = (a * queryHeads + head) * groups;
      const scores = all.slice(at, at + groups);
      const lastSlot = slot + Math.min(q.rows, (a + 1) * stride) - 1;
      softmax(scores, Math.floor(lastSlot / stride) + 1);
      for (let g = 0; g < groups; g++) worth[Math.floor(g / groupsPerBlock)] += scores[g];
    }
    return worth;
  };
}

/** The fewest blocks with `share` of what all are worth, those before `sinks` and from `own` on among them. */
function fewest(worth: Float64Array, share: number, [sinks, own]: readonly [number, number]): number[] {
  const total = worth.reduce((a, b) => a + b, 0);
  const forced = (b: number) => b < sinks || b >= own;
  const order = Array.from(worth.keys()).sort((a, b) => Number(forced(b)) - Number(forced(a)) || worth[b] - worth[a]);
  let seen = 0;
  return order.filter((b) => {
    const wanted = forced(b) || seen < share * total;
    if (wanted) seen += worth[b];
    return wanted;
  });
}
