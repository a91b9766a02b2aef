import type { ModelSpec } from "../arch/index.js";
import type { GradientStatistic } from "../compress/index.js";
import type { UnitGradients, UnitType } from "../compress/internal.js";
import type { JobOptions } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";

/** Text in windows of one length, each with a loss of its own. */
export interface TextWindows {
  /** u32 [windows * window], one window after the other. */
  tokens: Uint32Array;
  /** Tokens of a window. */
  window: number;
  /** u32 [windows]: tokens of each that are text; what follows them only fills the window up. Default: all. */
  lengths?: Uint32Array;
  /** i32 [windows]: the class of each, for models that classify. */
  labels?: Int32Array;
}

/** Gradients of the loss by factors (of 1) of the heads and of the neurons of one block. */
export interface BlockUnitGradients extends Record<UnitType, UnitGradients> {
  /** Number of the block. */
  layer: number;
}

/** What is known of the gradients of one block. */
export interface BlockGradients {
  /** Number of the block. */
  layer: number;
  /**
   * Of every statistic that was asked for, f32 [rows, cols] by the id of each linear map. The loss of a window is its mean negative
   * log likelihood per predicted token, and a window is one example: `gradients` is the mean over windows of its gradient, which
   * is that of the loss of all, and `squaredGradients` the mean of its square, the diagonal of the empirical Fisher information.
   */
  values: Readonly<Partial<Record<GradientStatistic, ReadonlyMap<string, Float32Array>>>>;
}

/** How gradients are computed. */
export interface BackwardOptions extends JobOptions {
  /** Changes the weights of a block in place before it is run: f32 [rows, cols] by the id of each linear map. */
  change?(layer: number, weights: ReadonlyMap<string, Float32Array | Float64Array>): void;
}

/**
 * What can differentiate a model's loss. Compression asks for gradients here and does not know who computes them; `rarefy/train`
 * has one (`gradientSource`).
 */
export interface GradientSource {
  /** What computes: results of two that differ here may differ in their last digits. */
  readonly arithmetic: string;
  /**
   * Gradients at the weights of the checkpoint, block by block as they become known, which is from the last to the first.
   * @throws UsageError for a model that cannot be differentiated, NonFiniteError
   */
  blockGradients(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    windows: TextWindows,
    wanted: readonly GradientStatistic[],
    options?: BackwardOptions,
  ): AsyncIterable<BlockGradients>;
  /**
   * Gradients by factors of what heads and neurons give, as `blockGradients`; one for every batch.
   * @param together windows whose mean loss is that of a batch
   */
  unitGradients(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    windows: TextWindows,
    together: number,
    options?: JobOptions,
  ): AsyncIterable<BlockUnitGradients>;
}
