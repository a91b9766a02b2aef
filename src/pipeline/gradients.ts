import type { ModelSpec } from "../arch/index.js";
import type { GradientStatistic } from "../compress/index.js";
import type { JobOptions } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";

/** Text in windows of one length, each with a loss of its own. */
export interface TextWindows {
  /** u32 [windows * window], one window after the other. */
  tokens: Uint32Array;
  /** Tokens of a window. */
  window: number;
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
    options?: JobOptions,
  ): AsyncIterable<BlockGradients>;
}
