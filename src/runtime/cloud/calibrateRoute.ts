import { breathe, type JobOptions, Stage, UsageError } from "../../core/index.js";
import { explainNonFinite, type Model } from "../../model/index.js";
import { Sequence, type SequenceOptions } from "../sequence.js";
import { readRow } from "./readRow.js";
import { type Route, withBudget } from "./route.js";

/** Which part of a text a threshold is found on. */
export interface CalibrateRouteOptions extends JobOptions, Pick<SequenceOptions, "attention" | "kv" | "thresholds"> {
  /** Tokens of a window; default 256. */
  window?: number;
  /** Windows from the start of the text; default 16. */
  windows?: number;
}

/**
 * Finds the threshold of a budget: so much of what a model predicts along a text, with the attention and the cache that it is to run
 * with, is less certain. For whole texts the decisions are
 * those of spans of the text, one behind the other.
 * @param model that answers first
 * @returns the rule with its threshold; as it is where it has one
 * @throws UsageError for a text too short for one decision
 */
export async function calibrateRoute(
  model: Model,
  route: Route,
  tokens: Uint32Array,
  { window = 256, windows = 16, signal, onProgress, ...own }: CalibrateRouteOptions = {},
): Promise<Route> {
  if (route.budget === undefined) return route;
  const { span = 1 } = route;
  if (span > window) throw new UsageError(`${route.text} decides on ${span} tokens, a window has ${window}`);
  const count = Math.min(windows, Math.floor(tokens.length / window));
  const stage = new Stage("find the threshold of routing", count, "windows", onProgress);
  const decided: number[] = [];
  for (let w = 0; w < count; w++) {
    await breathe(signal);
    using sequence = new Sequence(model, window, own);
    const read = tokens.subarray(w * window, (w + 1) * window);
    const found: number[] = [];
    // What is thrown away, and what codes are made of, is decided as tokens come one by one.
    const rows = sequence.keepsAll && own.kv?.codes === undefined ? window : 1;
    for (let first = 0; first < window; first += rows) {
      found.push(...(await certainties(sequence, route, read.subarray(first, first + rows), signal)));
    }
    for (let first = 0; first + span <= window; first += span) decided.push(mean(found.slice(first, first + span)));
    stage.advance(1);
  }
  if (decided.length === 0) {
    throw new UsageError(`a text of ${tokens.length} tokens; ${route.text} looks at windows of ${window}`);
  }
  return withBudget(route, decided);
}

/** How sure the model is behind each of some tokens of a text. */
async function certainties(
  sequence: Sequence,
  route: Route,
  tokens: Uint32Array,
  signal: AbortSignal | undefined,
): Promise<number[]> {
  if (tokens.length === 1) return [route.certainty(await readRow(sequence, await sequence.run(tokens, { signal })))];
  const { backend, config } = sequence.model;
  const logits = await sequence.runRows(tokens);
  const values = await backend.read(logits).finally(() => backend.release(logits));
  const row = (i: number) => values.subarray(i * logits.cols, i * logits.cols + config.vocabSize);
  const found = Array.from(tokens, (_, i) => route.certainty(row(i)));
  if (found.some(Number.isNaN)) throw await explainNonFinite(sequence.model, tokens);
  return found;
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
