import { count } from "../parameters.js";
import { pattern } from "./pattern.js";

/**
 * BigBird (2007.14062), causal: of blocks the first ones, a window up to the query's own, and random ones between, alike in
 * all heads and layers.
 */
export const bigbird = pattern({
  summary: "blocks: first ones, a window and random ones (BigBird)",
  parameters: {
    block: count("positions of a block", 1, 64),
    global: count("first blocks that all see", 0, 2),
    window: count("blocks back, the query's own included", 1, 3),
    random: count("random blocks", 0, 3),
    seed: count("where the random numbers begin", 0, 12345),
    length: count("positions of a text whose last block sees all, as in BigBird-ITC; 0: none", 0, 0),
  },
  see: ({ block, global, window, random, seed, length }) => {
    const drawn = randomBlocks(global, window, random, seed);
    return (position) => {
      const own = Math.floor(position / block);
      if (length > 0 && own === Math.floor((length - 1) / block)) return [[0, position + 1]];
      return [
        [0, global * block],
        [(own - window + 1) * block, position + 1],
        ...drawn(own).map((b) => [b * block, (b + 1) * block] as const),
      ];
    };
  },
});

/**
 * For each query block in turn draws among the blocks between the global ones and the window. The numbers are x ← (1103515245
 * x + 12345) mod 2^31 and part of the pattern: the same seed gives the same blocks everywhere.
 */
function randomBlocks(global: number, window: number, random: number, seed: number): (block: number) => number[] {
  const drawn: number[][] = [];
  let x = BigInt(seed);
  const draw = (block: number): number[] => {
    const candidates = Array.from({ length: Math.max(0, block - window + 1 - global) }, (_, i) => global + i);
    const picks: number[] = [];
    while (picks.length < random && candidates.length > 0) {
      x = BigInt.asUintN(31, 1103515245n * x + 12345n);
      picks.push(...candidates.splice(Number(x % BigInt(candidates.length)), 1));
    }
    return picks;
  };
  return (block) => {
    while (drawn.length <= block) drawn.push(draw(drawn.length));
    return drawn[block];
  };
}
