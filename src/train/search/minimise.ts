import { breathe, type JobOptions, NonFiniteError, Stage } from "../../core/index.js";
import type { Candidate, Search, SearchSpace } from "./contract.js";

/** How a search is run. */
export interface MinimiseOptions extends SearchSpace, JobOptions {
  /** How often the function may be asked, the start counted. */
  evaluations: number;
}

/**
 * The best of the points that a search looks at, the start among them: never worse than that.
 * @param start f64 [dimensions], within the bounds
 * @throws NonFiniteError for a value at the start that is none; elsewhere such a point is the worst there is
 */
export async function minimise(
  { points }: Search,
  start: Float64Array,
  valueAt: (point: Float64Array) => Promise<number>,
  { evaluations, signal, onProgress, ...space }: MinimiseOptions,
): Promise<Candidate> {
  const stage = new Stage("search", evaluations, "evaluations", onProgress);
  const ask = async (point: Float64Array) => {
    await breathe(signal);
    const value = await valueAt(point);
    stage.advance(1);
    return Number.isNaN(value) ? Number.POSITIVE_INFINITY : value;
  };
  let best: Candidate = { point: start, value: await ask(start) };
  if (!Number.isFinite(best.value)) throw new NonFiniteError("the loss is not finite where the search begins");
  const looking = points(best, space);
  let { value: point } = looking.next();
  for (let asked = 1; asked < evaluations; asked++) {
    const value = await ask(point);
    if (value < best.value) best = { point, value };
    ({ value: point } = looking.next(value));
  }
  return best;
}
