import { count } from "../parameters.js";
import { policy } from "./policy.js";
import { atPrompt, promptParameters } from "./snapkv.js";

/**
 * PyramidKV (2406.02069): SnapKV with more room in early layers, whose attention is spread, and less in late ones. From layer to
 * layer it falls by the same step; the last one has a `beta`-th of the mean.
 */
export const pyramidkv = policy({
  summary: "of a prompt what its last tokens look at, less from layer to layer (PyramidKV)",
  parameters: { ...promptParameters, beta: count("the mean by the room of the last layer", 1, 20) },
  make: (values) =>
    atPrompt(values, (layer, layers, held) => {
      const { budget, window, beta } = values;
      const least = Math.floor((budget - window) / beta);
      const most = Math.min(2 * (budget - window) - least, held - window);
      return window + most - layer * Math.floor((most - least) / Math.max(1, layers - 1));
    }),
});
