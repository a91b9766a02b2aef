import * as z from "zod/mini";
import { factor, type Rope } from "./rope.js";

/** Positions divided by a factor (arXiv 2306.15595). */
export const rope: Rope<{ type: "linear"; factor: number }> = {
  schema: z.pipe(
    z.object({ factor }),
    z.transform((fields) => ({ type: "linear" as const, factor: fields.factor })),
  ),
  scaled: ({ factor }, plain) => plain.map((frequency) => frequency / factor),
};
