import type { RouterSpec } from "../../arch/index.js";
import { relu, sigmoid } from "../engine/layers.js";
import {
  add,
  divide,
  greater,
  multiply,
  range,
  reshape,
  softmax,
  stopGradient,
  sum,
  sumOfRows,
  type Traced,
  where,
} from "../engine/ops.js";

/** How experts are chosen and weighed: see `RouterSpec`. */
export interface RouteOptions
  extends Pick<RouterSpec, "score" | "choiceFirst" | "groups" | "uniform" | "normalise" | "factor"> {
  /** Default: all that score more than 0. */
  perToken?: number;
  /** f32 [experts] */
  choiceBias?: Traced;
}

export interface Routed {
  /** f32 [rows, experts]; 0 for experts that were not chosen. */
  gates: Traced;
  /** f32 [rows, experts]: what gates are made of, of all experts. */
  scores: Traced;
  /** f32 [rows, experts], 0 or 1; no gradient. */
  chosen: Traced;
}

const scoring = { softmax, sigmoid, relu } satisfies Record<RouterSpec["score"], (logits: Traced) => Traced>;

/** Less than any score. */
const never = -1e30;

/** Which experts each row is sent to, and with which weights. @param logits f32 [rows, experts] */
export function route(logits: Traced, options: RouteOptions): Routed {
  const { score, choiceFirst, uniform, normalise, factor = 1 } = options;
  const scores = scoring[score](logits);
  const chosen = choose(logits, scores, options);
  const weights = choiceFirst ? scoring[score](where(greater(chosen, 0), logits, never)) : scores;
  const masked = uniform ? chosen : multiply(weights, chosen);
  const gates = uniform || normalise ? divide(masked, sumOfRows(masked)) : masked;
  return { gates: factor === 1 ? gates : multiply(gates, factor), scores, chosen };
}

/** f32 [rows, experts], 0 or 1; no gradient. */
function choose(logits: Traced, scores: Traced, { perToken, score, choiceBias, groups }: RouteOptions): Traced {
  const biased = choiceBias === undefined ? scores : add(scores, choiceBias);
  // The order of the logits is that of the scores, and no two fall together.
  const ranked = groups !== undefined ? withinGroups(biased, groups) : choiceBias === undefined ? logits : biased;
  const working = stopGradient(where(greater(scores, 0), 1, 0));
  if (perToken === undefined) return working;
  const chosen = largest(ranked, perToken);
  return score === "relu" ? multiply(chosen, working) : chosen;
}

/** Experts outside of the `kept` groups with the largest sums of two become the last choice. */
function withinGroups(ranked: Traced, { count, kept }: { count: number; kept: number }): Traced {
  const [rows, experts] = ranked.shape;
  const size = experts / count;
  const grouped = reshape(stopGradient(ranked), [rows * count, size]);
  const best = reshape(sumOfRows(multiply(grouped, largest(grouped, Math.min(2, size)))), [rows, count]);
  const open = reshape(largest(best, kept), [rows, count, 1]);
  const spread = reshape(add(open, multiply(reshape(grouped, [rows, count, size]), 0)), [rows, experts]);
  return where(greater(spread, 0), ranked, never);
}

/** 0/1 for the k largest of each row, the first of equals; no gradient. By rank, so that k may be any without a sort. */
function largest(scores: Traced, k: number): Traced {
  const [rows, count] = scores.shape;
  const fixed = stopGradient(scores);
  const own = reshape(fixed, [rows, count, 1]);
  const other = reshape(fixed, [rows, 1, count]);
  const position = reshape(range(count), [1, 1, count]);
  const earlier = greater(reshape(range(count), [1, count, 1]), position);
  const ahead = where(greater(other, own), 1, where(earlier, where(greater(own, other), 0, 1), 0));
  return stopGradient(where(greater(k, sum(ahead, 2)), 1, 0));
}

/** E/(k·T²)·Σₑ (Σₜ score)·nₑ: 1 at perfect balance of softmax scores. The counts nₑ carry no gradient. */
export function balanceLoss(scores: Traced, chosen: Traced, perToken: number): Traced {
  const [tokens, experts] = scores.shape;
  const factor = experts / (perToken * tokens * tokens);
  return multiply(sum(multiply(sum(scores, 0), stopGradient(sum(chosen, 0)))), factor);
}
