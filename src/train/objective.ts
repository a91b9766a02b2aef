import type { State } from "./state.js";
import type { FloatArray, ParameterInfo, Values } from "./values.js";

/** One array of a batch, row-major. Token ids and labels are Int32Array. */
export interface BatchArray {
  readonly shape: readonly number[];
  readonly values: FloatArray | Int32Array;
}

/** The arrays of one step, by name. */
export type Batch = Readonly<Record<string, BatchArray>>;

/** What one batch says about the weights. */
export interface LossAndGradients {
  loss: number;
  /** dL/dW of every parameter, at the weights given; owned by the caller. */
  gradients: Map<string, FloatArray>;
  /** What else the objective measures, by name: counts of tokens per expert, shares of zeros. */
  measured: ReadonlyMap<string, FloatArray>;
}

/** A loss over batches and its gradient. What is sparse, how weights move and when is not its concern. */
export interface Objective extends Disposable {
  readonly parameters: readonly ParameterInfo[];
  /** The teacher runs within: batches need hold nothing that it has, and all are learnt from it. */
  readonly hasTeacher?: boolean;
  /** Batches of other shapes than before compile anew. */
  lossAndGradients(weights: Values, batch: Batch): Promise<LossAndGradients>;
  /** The loss of the predictions alone, without balancing terms, for evaluation. */
  loss(weights: Values, batch: Batch): Promise<number>;
  /** The model's outputs, row-major: logits or predictions. */
  predict(weights: Values, batch: Batch): Promise<FloatArray>;
  /**
   * What one that learns from the model is shown of it, for the batch: present where it was asked for (`TraceOptions.shown`). A teacher
   * does not change: weights that were given in the last call are taken to hold what they held then.
   */
  show?(weights: Values, batch: Batch): Promise<Batch>;
}

/** Something outside of the gradient that steers a model through its batches and learns from what was measured. */
export interface BatchControl {
  /** Stored with the run. */
  readonly state: State;
  /** Arrays to add to the next batch. */
  arrays(): Batch;
  /** Those of a model that is only measured, where they are others. */
  evaluationArrays?(): Batch;
  /** After the step. */
  observe(measured: ReadonlyMap<string, FloatArray>): void;
  /** For the run log. */
  metrics?(): Record<string, number>;
}
