import type { RouterSpec } from "../arch/index.js";
import { mostExpertsOf } from "../arch/internal.js";
import type { RouteOptions } from "../kernels/index.js";

/** How a backend chooses experts and weighs them. @param choiceBias f32 [experts] */
export function routeOptions(router: RouterSpec, choiceBias: Float32Array | undefined): RouteOptions {
  const { map, score, choiceFirst, groups, uniform, normalise, factor } = router;
  return {
    experts: map.rows,
    perRow: mostExpertsOf(router),
    score,
    // Softmax over the chosen is softmax over all, divided by the sum of the chosen.
    normalise: normalise || (choiceFirst === true && score === "softmax"),
    ...(choiceBias && { choiceBias }),
    ...(groups && { groups }),
    ...(uniform && { uniform }),
    ...(factor !== undefined && { factor }),
  };
}
