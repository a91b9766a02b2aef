import type { Scale } from "../../train/index.js";

export interface FiveSchemesProtocol {
  /** Of training, the same for every scheme that learns. */
  steps: number;
  batch: number;
  window: number;
  rate: number;
  /** Of the training text. */
  maxTokens: number;
  /** What perplexity is measured on, and one shot calibrated. */
  evaluation: { window: number; maxWindows: number };
  calibration: { windows: number; window: number };
  /** What decoding is timed on, in turn with the dense model. */
  speed: { prefillTokens: number; decodeTokens: number; repeats: number };
}

export const protocols: Readonly<Record<Scale, FiveSchemesProtocol>> = {
  smoke: {
    ...{ steps: 2, batch: 1, window: 16, rate: 1e-3, maxTokens: 400 },
    evaluation: { window: 32, maxWindows: 1 },
    calibration: { windows: 2, window: 128 },
    speed: { prefillTokens: 4, decodeTokens: 4, repeats: 1 },
  },
  laptop: {
    ...{ steps: 100, batch: 4, window: 128, rate: 1e-3, maxTokens: 1_000_000 },
    evaluation: { window: 512, maxWindows: 20 },
    calibration: { windows: 16, window: 256 },
    speed: { prefillTokens: 32, decodeTokens: 32, repeats: 5 },
  },
  gpu: {
    ...{ steps: 1000, batch: 16, window: 256, rate: 7e-4, maxTokens: 1e8 },
    evaluation: { window: 512, maxWindows: 40 },
    calibration: { windows: 64, window: 512 },
    speed: { prefillTokens: 32, decodeTokens: 64, repeats: 7 },
  },
};
