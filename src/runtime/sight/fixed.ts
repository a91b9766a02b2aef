import { count, oneOf } from "../parameters.js";
import { pattern } from "./pattern.js";

/** Sparse Transformer (1904.10509), fixed: the query's own stretch, and the last columns of every stretch. */
export const fixed = pattern({
  summary: "the own stretch and the last columns of every other (Sparse Transformer)",
  parameters: {
    stride: count("positions of a stretch", 1),
    columns: count("last positions of a stretch that all see", 0),
    split: oneOf("whether heads take turns with the two parts", "union", "heads"),
  },
  periods: ({ split }) => ({ heads: split === "heads" ? 2 : 1 }),
  see: ({ stride, columns, split }) => {
    return function* (position, { head }) {
      const begin = position - (position % stride);
      if (split === "union" || head % 2 === 0) yield [begin, position + 1];
      if (split === "heads" && head % 2 === 0) return;
      yield [position, position + 1];
      for (let end = stride; end <= begin + stride; end += stride) yield [end - Math.min(columns, stride), end];
    };
  },
});
