import { count } from "../parameters.js";
import { local, pattern } from "./pattern.js";

/** The last `size` positions, and the first ones as attention sinks: the A shape of MInference (2407.02490). */
export const window = pattern({
  summary: "a window, with sinks an A-shape",
  parameters: { size: count("positions back, the query's own included", 1), sinks: count("first positions", 0, 0) },
  see:
    ({ size, sinks }) =>
    (position) => [[0, sinks], local(position, size)],
});
