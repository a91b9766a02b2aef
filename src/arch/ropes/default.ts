import * as z from "zod/mini";
import type { Rope } from "./rope.js";

/** As published. */
export const rope: Rope<{ type: "default" }> = {
  schema: z.pipe(
    z.object({}),
    z.transform(() => ({ type: "default" as const })),
  ),
  scaled: (_, plain) => plain,
};
