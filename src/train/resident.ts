import type { Batch, LossAndGradients, Objective } from "./objective.js";
import type { OptimizerOptions } from "./optimizers/adamW.js";
import type { Masks } from "./optimizers/links.js";
import type { FloatArray, ParameterInfo } from "./values.js";

/** The decay of a pruned weight in one step; see `adamWithMaskedDecay`. */
export interface Pull {
  /** Added to the gradient: this times the weight. */
  gradient: number;
  /** What takes the place of the mean gradient m: mean·m + weight·w + sign·sign(w). */
  mean: number;
  weight: number;
  sign: number;
}

export const noPull: Pull = { gradient: 0, mean: 1, weight: 0, sign: 0 };

/**
 * What a method does, in numbers that a kernel takes: for methods with N:4 masks, or none, and an optimiser of Adam's kind. The
 * same step on the host is its oracle.
 */
export interface DeviceMethod {
  /** Steps between two choices of masks by magnitude; 0: they stay. */
  interval: number;
  /** Entries that a choice keeps of every four along a row. */
  keep: number;
  /** What the forward pass multiplies with: W, W ∘ M, or W with trainable scales for so many stretches of each row. */
  forward: "weights" | "masked" | { scales: number; nameOf(parameter: string): string };
  /** Pruned entries stay 0, their gradients and moments too. */
  frozen: boolean;
  /** Decoupled weight decay applies. */
  decays: boolean;
  pull(step: number): Pull;
  /** What the second moment of Adam is of: gradients, or mean gradients after the pull. */
  squares: "gradients" | "means";
  /** Masks of the run and those of its first choice; read when the run goes to the device, written when it comes back. */
  masks: Masks;
  first?: Masks;
  /** After a choice: shares of mask entries that changed, and that differ from the first choice. */
  observe?(flipRate: number, drift: number): void;
  /** After a step, what is not among the largest becomes 0; then the masks are of what is not 0. */
  projection?: {
    /** Steps between two projections. */
    interval: number;
    /** Parameters that share a budget, in whose order the first of equal entries stays, and how many entries stay. */
    budgets: readonly { names: readonly string[]; keep: number }[];
    /** @param density share of entries other than 0 */
    observe(density: number): void;
  };
}

/** A step of Adam on dense weights. */
export const plainDevice: DeviceMethod = {
  interval: 0,
  keep: 4,
  forward: "weights",
  frozen: false,
  decays: true,
  pull: () => noPull,
  squares: "gradients",
  masks: new Map(),
};

/** Host arrays that a run begins with, and that `synchronise` brings up to date. */
export interface ResidentArrays {
  weights: ReadonlyMap<string, FloatArray>;
  /** Moments of Adam. */
  mean: ReadonlyMap<string, FloatArray>;
  square: ReadonlyMap<string, FloatArray>;
}

export interface ResidentOptions {
  method: DeviceMethod;
  optimizer: OptimizerOptions;
  parameters: readonly ParameterInfo[];
  arrays: ResidentArrays;
  /** Masks were chosen before: the run goes on. */
  chosen: boolean;
}

/** A training run whose weights, moments and masks live on the device. */
export interface ResidentRun extends Disposable {
  /** One step. @returns what the batch said before it */
  advance(batch: Batch, step: number): Promise<Omit<LossAndGradients, "gradients">>;
  /** The model's outputs, row-major. */
  predict(batch: Batch): Promise<FloatArray>;
  /** Brings the host's arrays up to date. */
  synchronise(): Promise<void>;
}

/** An objective that can also hold a run. */
export interface ResidentObjective extends Objective {
  startResident(options: ResidentOptions): ResidentRun;
}

export const canHoldRun = (objective: Objective): objective is ResidentObjective => "startResident" in objective;
