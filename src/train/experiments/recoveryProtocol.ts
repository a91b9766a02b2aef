import type { Scale } from "./contract.js";

export interface RecoveryProtocol {
  steps: number;
  /** Sequences of a step, and tokens of each; what is evaluated is cut alike. */
  batchSize: number;
  window: number;
  /** Peak and end of the cosine, after `warmup` steps. */
  rate: number;
  finalRate: number;
  warmup: number;
  weightDecay: number;
  /** Windows that the perplexity is measured on, at most. */
  testWindows: number;
  /** Times the perplexity is measured over the run. */
  tests: number;
  /** What one-shot pruning sees. */
  calibration: { windows: number; window: number };
  /** Of the training text. */
  maxTokens: number;
}

export const protocols: Readonly<Record<Scale, RecoveryProtocol>> = {
  smoke: {
    steps: 2,
    batchSize: 1,
    window: 16,
    rate: 1e-4,
    finalRate: 1e-6,
    warmup: 1,
    weightDecay: 0.1,
    testWindows: 2,
    tests: 1,
    calibration: { windows: 2, window: 16 },
    maxTokens: 200,
  },
  laptop: {
    steps: 200,
    batchSize: 4,
    window: 128,
    rate: 3e-4,
    finalRate: 3e-6,
    warmup: 20,
    weightDecay: 0.1,
    testWindows: 128,
    tests: 2,
    calibration: { windows: 64, window: 512 },
    maxTokens: 110_000,
  },
  gpu: {
    steps: 1250,
    batchSize: 32,
    window: 512,
    rate: 7e-4,
    finalRate: 7e-6,
    warmup: 60,
    weightDecay: 0.1,
    testWindows: 10_000,
    tests: 5,
    calibration: { windows: 64, window: 512 },
    maxTokens: 1e9,
  },
};
