import { count, oneOf } from "../parameters.js";
import { every, local, pattern } from "./pattern.js";

/** A window with gaps (Longformer, 2004.05150, section 3.1): `window` positions, every `dilation`-th one. */
export const dilated = pattern({
  summary: "a window with gaps (dilated)",
  parameters: {
    window: count("positions seen, the query's own included", 1),
    dilation: count("from one of them to the next", 1, 2),
    global: count("first positions that all see", 0, 0),
    split: oneOf("whether every other head has gaps", "union", "heads"),
  },
  periods: ({ split }) => ({ heads: split === "heads" ? 2 : 1 }),
  see:
    ({ window, dilation, global, split }) =>
    (position, { head }) => [
      [0, global],
      ...(split === "heads" && head % 2 === 0
        ? [local(position, window)]
        : every(position, dilation, position - window * dilation)),
    ],
});
