/** W + scale · b · a in place of one matrix of a model. */
export interface LoraPair {
  /** f32 [rank, cols] */
  a: Float32Array;
  /** f32 [rows, rank] */
  b: Float32Array;
  rank: number;
  rows: number;
  cols: number;
  /** lora_alpha / rank, or what the adapter's config makes of it. */
  scale: number;
}

/** Factors of the outputs of one matrix, or of its inputs (IA³). */
export interface Rescaling {
  /** f32 [rows] or [cols] */
  factors: Float32Array;
  of: "outputs" | "inputs";
}

/** Experts of one matrix, and what weighs them for every token: s = softmax(router · x). */
export interface ExpertRouter {
  experts: number;
  /** f32 [experts, width of what is routed] */
  router: Float32Array;
  /** So many experts of a token count, those with the largest s; the others do nothing. Default: all. */
  topK?: number;
}

/** W·x + scale · Σ sᵢ·bᵢ·(aᵢ·x) in place of one matrix of a model (MoLoRA); routed by x. */
export interface PairMixture extends ExpertRouter {
  /** f32 [experts, rank, cols] */
  a: Float32Array;
  /** f32 [experts, rows, rank] */
  b: Float32Array;
  rank: number;
  rows: number;
  cols: number;
  scale: number;
}

/**
 * Outputs or inputs of one matrix times 1 + Σ sᵢ·(lᵢ − 1), which is Σ sᵢ·lᵢ while all experts count (MoV). What is multiplied is what is
 * routed, every run of `width` columns by itself: a head of keys or values, or all.
 */
export interface RescalingMixture extends ExpertRouter {
  /** f32 [experts, rows] or [experts, cols] */
  factors: Float32Array;
  of: "outputs" | "inputs";
  /** Columns of a run; divides the number of factors. */
  width: number;
}

/**
 * What was learnt beside a model that stays as it is, in the layout of PEFT, which has no mixtures: by the name of the module whose matrix it is for,
 * "model.layers.0.self_attn.q_proj". W is [rows, cols] = [out, in], however the checkpoint stores it.
 */
export type Adapter =
  | { kind: "lora"; modules: ReadonlyMap<string, LoraPair>; base?: string }
  | { kind: "ia3"; modules: ReadonlyMap<string, Rescaling>; base?: string }
  | { kind: "molora"; modules: ReadonlyMap<string, PairMixture>; base?: string }
  | { kind: "mov"; modules: ReadonlyMap<string, RescalingMixture>; base?: string };

/** Name of the file that says what kind of adapter lies beside it. */
export const adapterConfigName = "adapter_config.json";
/** Name of the file with an adapter's numbers. */
export const adapterWeightsName = "adapter_model.safetensors";

/** In front of the names of modules, as PEFT wraps models. */
export const modulePrefix = "base_model.model.";
