import * as z from "zod/mini";
import type { Layer, PruneMethod } from "../contract.js";
import { pruneByScore } from "../score.js";
import type { InputStatistics } from "../statistics.js";

const options = z.strictObject({
  curvature: z
    ._default(z.enum(["layer", "gradients"]), "layer")
    .check(
      z.describe(
        "layer: of the layer's own output error; gradients: of the loss, the diagonal of the empirical Fisher information",
      ),
    ),
});
type Options = z.output<typeof options>;

/**
 * Saliency ½·h·w² with the diagonal of the Hessian: what removing a weight costs when nothing else moves. With the
 * layer's own objective h is the mean of 2x², and the order within a row is Wanda's.
 */
export const method: PruneMethod<Options> = {
  id: "obd",
  title: "Optimal Brain Damage",
  paper: "LeCun, Denker, Solla 1989, NIPS 2",
  options,
  patterns: {
    unstructured: ["tensor", "row"],
    nm: ["row"],
    block: ["tensor", "row"],
    rows: ["tensor"],
    columns: ["tensor"],
    neurons: ["tensor", "global"],
    heads: ["tensor", "global"],
  },
  needs: ({ curvature }) => (curvature === "layer" ? ["columnSquares"] : ["squaredGradients"]),
  score,
  prune: (layer, statistics, pattern, options) =>
    pruneByScore(method, layer, score(layer, statistics, options), pattern),
};

function score(layer: Layer, statistics: InputStatistics, { curvature }: Options): Float32Array {
  if (curvature === "gradients") {
    const fisher = statistics.get("squaredGradients");
    return layer.weight.map((w, i) => Math.abs(w) * Math.sqrt(fisher[i] / 2));
  }
  const tokens = Math.max(1, statistics.tokens);
  const roots = statistics.get("columnSquares").map((sum) => Math.sqrt(sum / tokens));
  return layer.weight.map((w, i) => Math.abs(w) * roots[i % layer.cols]);
}
