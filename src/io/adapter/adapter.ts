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

/**
 * What was learnt beside a model that stays as it is, in the layout of PEFT: by the name of the module whose matrix it is for,
 * "model.layers.0.self_attn.q_proj". W is [rows, cols] = [out, in], however the checkpoint stores it.
 */
export type Adapter =
  | { kind: "lora"; modules: ReadonlyMap<string, LoraPair>; base?: string }
  | { kind: "ia3"; modules: ReadonlyMap<string, Rescaling>; base?: string };

/** Name of the file that says what kind of adapter lies beside it. */
export const adapterConfigName = "adapter_config.json";
/** Name of the file with an adapter's numbers. */
export const adapterWeightsName = "adapter_model.safetensors";

/** In front of the names of modules, as PEFT wraps models. */
export const modulePrefix = "base_model.model.";
