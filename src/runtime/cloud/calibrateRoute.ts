import { breathe, type JobOptions, Stage, UsageError } from "../../core/index.js";
import { explainNonFinite, type Model } from "../../model/index.js";
import { Sequence } from "../sequence.js";
import { type Route, withBudget } from "./route.js";

/** Which part of a text a threshold is found on. */
export interface CalibrateRouteOptions extends JobOptions {
  /** Tokens of a window; default 256. */
  window?: number;
  /** Windows from the start of the text; default 16. */
  windows?: number;
}

/**
 * Finds the threshold of a budget: so much of what a model predicts along a text is less certain. For whole texts the decisions are
 * those of spans of the text, one behind the other.
 * @param model that answers first
 * @returns the rule with its threshold; as it is where it has one
 * @throws UsageError for a text too short for one decision
 */
export async function calibrateRoute(
  model: Model,
  route: Route,
  tokens: Uint32Array,
  { window = 256, windows = 16, signal, onProgress }: CalibrateRouteOptions = {},
): Promise<Route> {
  if (route.budget === undefined) return route;
  const { span = 1 } = route;
  if (span > window) throw new UsageError(`${route.text} decides on ${span} tokens, a window has ${window}`);
  const count = Math.min(windows, Math.floor(tokens.length / window));
  const stage = new Stage("find the threshold of routing", count, "windows", onProgress);
  const certainties: number[] = [];
  for (let w = 0; w < count; w++) {
    await breathe(signal);
    using sequence = new Sequence(model, window);
    const read = tokens.subarray(w * window, (w + 1) * window);
    const logits = await sequence.runRows(read);
    const { cols } = logits;
    const values = await model.backend.read(logits).finally(() => model.backend.release(logits));
    const row = (i: number) => values.subarray(i * cols, i * cols + model.config.vocabSize);
    const found = Array.from({ length: window }, (_, i) => route.certainty(row(i)));
    if (found.some(Number.isNaN)) throw await explainNonFinite(model, read);
    for (let first = 0; first + span <= window; first += span) certainties.push(mean(found.slice(first, first + span)));
    stage.advance(1);
  }
  if (certainties.length === 0) {
    throw new UsageError(`a text of ${tokens.length} tokens; ${route.text} looks at windows of ${window}`);
  }
  return withBudget(route, certainties);
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
