import * as z from "zod/mini";
import type { Layer, ScaleMethod } from "../contract.js";

const options = z.strictObject({
  alpha: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.5)
    .check(z.describe("share of the difficulty moved from inputs to weights")),
});

/**
 * s_j = max|x_j|^α / max|w_j|^(1−α) over all matrices that read the input: outliers of the inputs move into the weights,
 * after which both round well to int8. Meant for inputs made by a norm, into whose weight 1/s folds.
 */
export const method: ScaleMethod<z.output<typeof options>> = {
  id: "smoothquant",
  title: "SmoothQuant",
  paper: "Xiao, Lin, Seznec, Wu, Demouth, Han 2023, arXiv:2211.10438",
  options,
  needs: () => ["columnAbsMax"],
  factors(consumers, statistics, { alpha }) {
    const weightMax = columnAbsMax(consumers, statistics.cols);
    return statistics
      .get("columnAbsMax")
      .map((x, c) => Math.max(1e-5, Math.max(x, 1e-5) ** alpha / Math.max(weightMax[c], 1e-5) ** (1 - alpha)));
  },
};

function columnAbsMax(layers: readonly Layer[], cols: number): Float32Array {
  const largest = new Float32Array(cols);
  for (const { weight } of layers) {
    for (let i = 0; i < weight.length; i++) largest[i % cols] = Math.max(largest[i % cols], Math.abs(weight[i]));
  }
  return largest;
}
