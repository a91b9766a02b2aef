import { slotsOfBlock } from "../../kernels/index.js";
import { count } from "../parameters.js";
import { BlockChoice, rowGroups } from "./blockChoice.js";
import { dynamicPattern, type Look, promptSeeker } from "./dynamic.js";
import { largest } from "./largest.js";
import { type LastQueries, lastQueries } from "./lastQueries.js";

/**
 * Vertical and slash lines of MInference (2407.02490): the last queries of a pass show which positions, and which distances
 * back, a head looks at; all its rows see those. Both come in whole key blocks.
 */
export const verticalSlash = dynamicPattern({
  summary: "of a prompt the positions and distances that its last tokens look at (MInference)",
  parameters: {
    vertical: count("positions that all rows see", 0, 1024),
    slash: count("distances back, the nearest always", 1, 1024),
    queries: count("last rows that decide", 1, 16),
  },
  seek: ({ vertical, slash, queries }) =>
    promptSeeker(async (look) => {
      if (look.slot + look.q.rows <= Math.max(vertical, slash)) return undefined;
      const choice = new BlockChoice(look);
      const last = await lastQueries(look, queries);
      for (let head = 0; head < look.queryHeads; head++)
        addVerticalSlash(choice, head, last, look, { vertical, slash });
      return choice;
    }),
});

/** Lets a head see its lines. */
export function addVerticalSlash(
  choice: BlockChoice,
  head: number,
  { first, count, shares }: LastQueries,
  look: Look,
  { vertical, slash }: { vertical: number; slash: number },
): void {
  const { slot } = look;
  const columns = new Float32Array(choice.blocks);
  const distances = new Float32Array(choice.blocks);
  for (let row = first; row < first + count; row++) {
    const given = shares(row, head);
    for (let s = 0; s <= slot + row; s++) {
      columns[Math.floor(s / slotsOfBlock)] += given[s];
      distances[Math.floor((slot + row - s) / slotsOfBlock)] += given[s];
    }
  }
  // The row's own place is always seen, and the first block, where attention sinks are.
  distances[0] = Number.POSITIVE_INFINITY;
  columns[0] = Number.POSITIVE_INFINITY;
  const verticals = largest(columns, Math.ceil(vertical / slotsOfBlock));
  const slashes = largest(distances, Math.ceil(slash / slotsOfBlock));
  for (const { group, first: from, last: to } of rowGroups(look)) {
    for (const block of verticals) choice.add(group, head, block, block + 1);
    for (const line of slashes) {
      const [least, most] = [slot + from - (line + 1) * slotsOfBlock + 1, slot + to - line * slotsOfBlock];
      if (most >= 0) choice.add(group, head, Math.floor(least / slotsOfBlock), Math.floor(most / slotsOfBlock) + 1);
    }
  }
}
