import type { ModelSpec } from "../arch/index.js";
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
   * f32 [rows, cols] by the id of each linear map: the mean over windows of the squared gradient of a window's loss, its mean
   * negative log likelihood per predicted token. The diagonal of the empirical Fisher information, a window as one example.
   */
  squares: ReadonlyMap<string, Float32Array>;
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
  squaredGradients(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    windows: TextWindows,
    options?: JobOptions,
  ): AsyncIterable<BlockGradients>;
}
