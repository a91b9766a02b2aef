import * as z from "zod";
import type { Rope } from "./rope.js";

/** As published. */
export const rope: Rope<{ type: "default" }> = {
  schema: z.object({}).transform(() => ({ type: "default" as const })),
  scaled: (_, plain) => plain,
};
