import type { ExitFeatures } from "./rule.js";

/** @param logits f32 [vocabulary] of one token; where one is no number neither is what comes of them */
export function exitFeatures(logits: Float32Array): ExitFeatures {
  let [first, second] = [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const logit of logits) {
    if (logit > first) [first, second] = [logit, first];
    else if (logit > second) second = logit;
  }
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - first);
  return { top: 1 / sum, gap: (1 - Math.exp(second - first)) / sum };
}
