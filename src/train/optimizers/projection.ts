import { hardThreshold } from "../selection/hardThreshold.js";
import type { Link } from "./link.js";

/** Parameters that share one budget of non-zeros. */
export interface Budget {
  names: readonly string[];
  count: number;
}

/**
 * After the step, all but the largest magnitudes of each budget become 0: the projection onto sparse vectors.
 * @param masks filled with what is not 0
 * @param due whether to project after this step
 */
export const projectSparse = (
  budgets: readonly Budget[],
  masks: ReadonlyMap<string, Uint8Array>,
  due: (step: number) => boolean,
): Link => ({
  init: () => ({}),
  settle(weights, _state, step) {
    if (!due(step)) return;
    for (const { names, count } of budgets) {
      hardThreshold(
        names.map((name) => weights.get(name) as Float32Array),
        count,
        names.map((name) => masks.get(name)!),
      );
    }
  },
});
