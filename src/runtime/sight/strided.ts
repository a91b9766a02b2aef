import { count, oneOf } from "../parameters.js";
import { every, local, pattern } from "./pattern.js";

/** Sparse Transformer (1904.10509), strided: the last `stride` positions, and every `stride`-th one before. */
export const strided = pattern({
  summary: "the last positions and every n-th one (Sparse Transformer)",
  parameters: {
    stride: count("positions", 1),
    split: oneOf("whether heads, or layers, take turns with the two parts", "union", "heads", "layers"),
  },
  periods: ({ split }) => ({ heads: split === "heads" ? 2 : 1, layers: split === "layers" ? 2 : 1 }),
  see: ({ stride, split }) => {
    return (position, { head, layer }) => {
      const turn = split === "heads" ? head % 2 : layer % 2;
      const near = split === "union" || turn === 0 ? [local(position, stride)] : [];
      const far = split === "union" || turn === 1 ? every(position, stride) : [];
      return [...near, ...far];
    };
  },
});
