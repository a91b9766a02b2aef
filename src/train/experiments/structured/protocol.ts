import type { Scale } from "../contract.js";

/** How a model of one kind is calibrated, trained and measured. */
export interface SubjectProtocol {
  /** Texts, or windows of a text, that masks are chosen by, and tokens of each at most. */
  calibration: { windows: number; window: number };
  /** Those whose mean loss makes one gradient. */
  together: number;
  /** Texts, or windows of a text, that are measured, and tokens of each at most. */
  test: { windows: number; window: number };
  /** A step of training. */
  batchSize: number;
  window: number;
  /** Peak of the cosine. */
  rate: number;
}

export interface StructuredProtocol {
  /** Of the multiply-adds of all heads and neurons, those that stay. */
  shares: readonly number[];
  classifier: SubjectProtocol;
  decoder: SubjectProtocol;
  steps: number;
  warmup: number;
  weightDecay: number;
  /** Weight of the dense model's predictions in what is learnt; 1 − this is that of the text. */
  distil: number;
  /** Of the training text of a decoder. */
  maxTokens: number;
}

const common = { weightDecay: 0.01, distil: 0.5 };

export const protocols: Readonly<Record<Scale, StructuredProtocol>> = {
  smoke: {
    shares: [0.5],
    classifier: {
      ...{ calibration: { windows: 8, window: 16 }, together: 4, test: { windows: 8, window: 16 } },
      ...{ batchSize: 4, window: 16, rate: 1e-4 },
    },
    decoder: {
      ...{ calibration: { windows: 4, window: 16 }, together: 2, test: { windows: 2, window: 16 } },
      ...{ batchSize: 2, window: 16, rate: 1e-4 },
    },
    steps: 4,
    warmup: 1,
    ...common,
    maxTokens: 400,
  },
  laptop: {
    shares: [0.75, 0.6, 0.5, 0.3, 0.2],
    classifier: {
      ...{ calibration: { windows: 2048, window: 64 }, together: 32, test: { windows: 100_000, window: 64 } },
      ...{ batchSize: 32, window: 64, rate: 1e-4 },
    },
    decoder: {
      ...{ calibration: { windows: 256, window: 128 }, together: 4, test: { windows: 40, window: 512 } },
      ...{ batchSize: 8, window: 128, rate: 3e-4 },
    },
    steps: 200,
    warmup: 20,
    ...common,
    maxTokens: 1_000_000,
  },
  gpu: {
    shares: [0.75, 0.6, 0.5, 0.3, 0.2],
    classifier: {
      ...{ calibration: { windows: 2048, window: 64 }, together: 32, test: { windows: 100_000, window: 64 } },
      ...{ batchSize: 32, window: 64, rate: 1e-4 },
    },
    decoder: {
      ...{ calibration: { windows: 512, window: 512 }, together: 8, test: { windows: 10_000, window: 512 } },
      ...{ batchSize: 32, window: 512, rate: 5e-4 },
    },
    steps: 1500,
    warmup: 60,
    ...common,
    maxTokens: 1e9,
  },
};
