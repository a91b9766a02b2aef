import { pattern } from "./pattern.js";

/** All positions up to the query's own. */
export const causal = pattern({
  summary: "everything before (dense)",
  parameters: {},
  see: () => (position) => [[0, position + 1]],
});
