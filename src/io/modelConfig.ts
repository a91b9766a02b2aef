import type { ActivationFunction } from "../core/index.js";

/** Rotary embedding, from `rope_parameters` (new spelling) or `rope_theta` and `rope_scaling` (old). */
export type RopeConfig =
  | { type: "default"; theta: number }
  | { type: "linear"; theta: number; factor: number }
  | {
      type: "llama3";
      theta: number;
      factor: number;
      lowFreqFactor: number;
      highFreqFactor: number;
      originalMaxPositions: number;
    };

/** Sizes of one decoder block that structured pruning may change. */
export interface BlockShape {
  queryHeads: number;
  kvHeads: number;
  intermediateSize: number;
}

/** The MLPs of a model in which each token is sent to some of several experts. */
export interface ExpertsConfig {
  count: number;
  /** Experts that work for one token. */
  perToken: number;
  /** Weight of the loss that balanced their load when the model was trained. */
  balance: number;
}

/** A decoder's `config.json`, checked and in our names. */
export interface ModelConfig {
  /** `model_type` of the file: "llama", "mistral", "mixtral", "qwen2", "qwen3". */
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
  rope: RopeConfig;
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
