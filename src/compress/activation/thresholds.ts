import type { ActivationHistogram } from "./histogram.js";

/** Threshold for a share p of zeros, from what calibration counted; p in [0, 1]. */
export type ThresholdEstimator = (histogram: ActivationHistogram, p: number) => number;

/**
 * How a threshold is read off a histogram. `absQuantile` realises p exactly on the calibration text even when the
 * activations are skewed; `symmetric` is what the published TEAL code does (arXiv 2408.14690).
 *
 * Both serve CATS too (arXiv 2404.08763), there on the histogram of f(gate).
 */
export const thresholdEstimators = {
  absQuantile: (histogram, p) => histogram.absQuantile(p),
  symmetric: (histogram, p) => histogram.symmetricQuantile(p),
} as const satisfies Record<string, ThresholdEstimator>;
/** One of `thresholdEstimators`. */
export type ThresholdEstimatorId = keyof typeof thresholdEstimators;
