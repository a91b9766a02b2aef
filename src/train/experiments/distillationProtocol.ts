import type { Scale } from "./contract.js";

/** A language model that learns from a larger one. */
export interface LanguageProtocol {
  student: ModelSize & { kvHeads: number };
  steps: number;
  rate: number;
  batchSize: number;
  window: number;
  /** Windows that the perplexity is measured on, at most. */
  testWindows: number;
}

/** Sizes of a Llama over the words of the task. */
export interface ModelSize {
  layers: number;
  hiddenSize: number;
  intermediateSize: number;
  heads: number;
}

export interface StudentProtocol {
  teacher: ModelSize & { steps: number; rate: number };
  student: ModelSize & { steps: number; rate: number };
  /** Texts of a step. */
  batchSize: number;
  /** Reports with one text each that students learn from, again and again; the teacher sees new ones all the time. */
  reports: number;
  /** Reports that nobody has seen. */
  tests: number;
}

export const studentProtocols: Readonly<Record<Exclude<Scale, "gpu">, StudentProtocol>> = {
  smoke: {
    teacher: { layers: 2, hiddenSize: 16, intermediateSize: 32, heads: 2, steps: 4, rate: 3e-3 },
    student: { layers: 1, hiddenSize: 8, intermediateSize: 16, heads: 2, steps: 4, rate: 3e-3 },
    batchSize: 4,
    reports: 8,
    tests: 8,
  },
  laptop: {
    teacher: { layers: 2, hiddenSize: 48, intermediateSize: 96, heads: 4, steps: 800, rate: 5e-3 },
    student: { layers: 1, hiddenSize: 12, intermediateSize: 24, heads: 2, steps: 1500, rate: 1e-2 },
    batchSize: 16,
    reports: 512,
    tests: 512,
  },
};

/** The architecture of the embedded model. */
export const languageProtocol: LanguageProtocol = {
  student: { layers: 6, hiddenSize: 256, intermediateSize: 704, heads: 8, kvHeads: 4 },
  steps: 400,
  rate: 2e-3,
  batchSize: 8,
  window: 256,
  testWindows: 128,
};
