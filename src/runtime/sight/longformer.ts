import { count } from "../parameters.js";
import { local, pattern } from "./pattern.js";

/** Longformer (2004.05150), causal and with shared projections: a window, and first tokens that every later one sees. */
export const longformer = pattern({
  summary: "a window and global first tokens (Longformer)",
  parameters: { window: count("positions back, the query's own included", 1), global: count("first positions", 0, 16) },
  see:
    ({ window, global }) =>
    (position) => [[0, global], local(position, window)],
});
