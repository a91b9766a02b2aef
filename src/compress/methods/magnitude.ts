import * as z from "zod/mini";
import type { PruneMethod } from "../contract.js";
import { pruneByScore } from "../score.js";
import { countings } from "../select.js";

const options = z.strictObject({
  counting: z
    ._default(z.enum(countings), "exact")
    .check(z.describe("exact: ⌊n·s⌋ zeros; threshold, below: everything up to, or below, the score of that rank")),
});

/**
 * Score |w|: of all masks with as many zeros it changes the weights least. Needs no calibration.
 * With scope "global" all targeted matrices share one threshold: see `shareGlobally`.
 */
export const method: PruneMethod<z.output<typeof options>> = {
  id: "magnitude",
  title: "Magnitude",
  paper: "Han, Pool, Tran, Dally 2015, arXiv:1506.02626",
  options,
  patterns: {
    unstructured: ["tensor", "row", "global"],
    nm: ["row"],
    block: ["tensor", "row"],
    rows: ["tensor"],
    columns: ["tensor"],
    neurons: ["tensor", "global"],
    heads: ["tensor", "global"],
  },
  needs: () => [],
  score: (layer) => layer.weight.map(Math.abs),
  prune(layer, _statistics, pattern, { counting }) {
    return pruneByScore(method, layer, layer.weight.map(Math.abs), pattern, counting);
  },
};
