import type { Scale } from "./contract.js";

/** Sizes, lengths and rates of the experiment with adapters. */
export interface AdapterProtocol {
  layers: number;
  hiddenSize: number;
  intermediateSize: number;
  heads: number;
  /** Of the base model: episodes of a batch. */
  episodes: number;
  baseSteps: number;
  baseRate: number;
  /** Of every contestant: instructions of a batch. */
  instructions: number;
  steps: number;
  /** Of every adapter that LoraHub combines. */
  moduleSteps: number;
  /** Of the LoRA that learns the few examples alone. */
  fewSteps: number;
  /** Texts that a task is tested with. */
  tests: number;
  /** Examples of a held-out task that may be looked at. */
  shots: number;
  /** Losses that a search may ask for. */
  evaluations: number;
}

export const protocols: Readonly<Record<Scale, AdapterProtocol>> = {
  smoke: {
    layers: 1,
    hiddenSize: 16,
    intermediateSize: 32,
    heads: 2,
    episodes: 2,
    baseSteps: 4,
    baseRate: 3e-3,
    instructions: 4,
    steps: 3,
    moduleSteps: 1,
    fewSteps: 2,
    tests: 4,
    shots: 2,
    evaluations: 3,
  },
  laptop: {
    layers: 3,
    hiddenSize: 64,
    intermediateSize: 128,
    heads: 4,
    episodes: 16,
    baseSteps: 5000,
    baseRate: 3e-3,
    instructions: 64,
    steps: 600,
    moduleSteps: 150,
    fewSteps: 60,
    tests: 100,
    shots: 3,
    evaluations: 40,
  },
  gpu: {
    layers: 6,
    hiddenSize: 256,
    intermediateSize: 512,
    heads: 8,
    episodes: 64,
    baseSteps: 10_000,
    baseRate: 1e-3,
    instructions: 256,
    steps: 2000,
    moduleSteps: 500,
    fewSteps: 100,
    tests: 200,
    shots: 5,
    evaluations: 40,
  },
};

/** A way to learn all tasks at once. */
export interface AdapterContestant {
  /** An adapter, or nothing for all weights. */
  adapter?: { kind: string; options: Readonly<Record<string, unknown>>; targets: readonly string[] };
  rate: number;
}

const all = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const factors = ["k_proj", "v_proj", "down_proj"];

/**
 * Pairs lie beside every matrix, also where LoRA's paper has them beside queries and values alone, so that only the mixture differs. A
 * pair of the papers' rank 4 would be a large part of so narrow a model; alpha / rank is theirs.
 */
export const contestants: Readonly<Record<string, AdapterContestant>> = {
  "all weights": { rate: 1e-3 },
  "LoRA, rank 1": { adapter: { kind: "lora", options: { rank: 1, alpha: 4 }, targets: all }, rate: 1e-2 },
  "LoRA, rank 10": { adapter: { kind: "lora", options: { rank: 10, alpha: 40 }, targets: all }, rate: 3e-3 },
  "IA³": { adapter: { kind: "ia3", options: {}, targets: factors }, rate: 3e-2 },
  "MoV-10": { adapter: { kind: "mov", options: { experts: 10 }, targets: factors }, rate: 3e-2 },
  "MoLoRA-10, rank 1": {
    adapter: { kind: "molora", options: { experts: 10, rank: 1, alpha: 4 }, targets: all },
    rate: 1e-2,
  },
};

/** The adapters that LoraHub combines. */
export const moduleAdapter = { rank: 4, alpha: 16, targets: all, rate: 3e-3 };
