import type { ActivationFunction } from "../core/index.js";
import type { RopeSpec } from "./ropes/index.js";
import type { BlockShape, ModelSpec } from "./spec.js";

/** The MLPs of a model in which each token is sent to some of several experts. */
export interface ExpertsConfig {
  count: number;
  /** Experts that work for one token. */
  perToken: number;
  /** Weight of the loss that balanced their load when the model was trained. */
  balance: number;
}

/**
 * The sizes of a decoder of equal blocks as single numbers: what reports, exports and the older parts of this package ask
 * for. All of it is read off the description; what differs from block to block is told by `spec` alone.
 */
export interface ModelConfig {
  readonly spec: ModelSpec;
  /** `model_type` of the file: the key of its family. */
  modelType: string;
  vocabSize: number;
  hiddenSize: number;
  /** Of a block as config.json gives it, like the heads; what each block has is in `blocks`. */
  intermediateSize: number;
  layers: number;
  queryHeads: number;
  kvHeads: number;
  headDim: number;
  /** Longest context the model was made for, in tokens. */
  maxPositions: number;
  rmsNormEpsilon: number;
  rope: RopeSpec;
  activation: ActivationFunction;
  tiedEmbeddings: boolean;
  /** Biases on q, k, v (and o where the checkpoint has one). */
  attentionBias: boolean;
  mlpBias: boolean;
  /** RMS norm on every head of q and k (Qwen3). */
  qkNorm: boolean;
  /** One per layer: equal to the fields above unless rarefy.json says otherwise. Length `layers`. */
  blocks: readonly BlockShape[];
  /** Present where the MLPs are mixtures of experts; `intermediateSize` is that of one expert. */
  experts?: ExpertsConfig;
  /** Positions seen by each layer; undefined entries see all. Length `layers`. */
  slidingWindows: readonly (number | undefined)[];
  bosTokenId?: number;
  /** Generation stops at any of these. */
  eosTokenIds: readonly number[];
}
