import * as z from "zod/mini";
import { factor, positions, type Rope } from "./rope.js";

export interface DynamicRope {
  type: "dynamic";
  factor: number;
  /** Contexts up to this long are not scaled. */
  maxPositions: number;
}

/**
 * A base that grows with what the context has more than the model was trained for ("dynamic NTK", emozilla 2023): the fast
 * pairs stay, the slow ones are stretched.
 */
export const rope: Rope<DynamicRope> = {
  schema: z.pipe(
    z.object({ factor, max_position_embeddings: positions }),
    z.transform((fields) => ({
      type: "dynamic" as const,
      factor: fields.factor,
      maxPositions: fields.max_position_embeddings,
    })),
  ),
  reach: ({ maxPositions }, length) => Math.max(length, maxPositions),
  scaled({ factor, maxPositions }, plain, reach) {
    const width = 2 * plain.length;
    const stretch = (factor * reach) / maxPositions - (factor - 1);
    // theta grows by stretch ** (width / (width − 2)).
    return plain.map((frequency, i) => frequency * stretch ** (width === 2 ? 0 : (-2 * i) / (width - 2)));
  },
};
