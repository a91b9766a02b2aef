import type { Distillation } from "./distillation.js";
import type { MoeConfig } from "./moeConfig.js";

/** What a trained decoder does beside what its config says. */
export interface DecoderOptions {
  /** The MLPs are mixtures of experts, with the tensors of Mixtral. */
  moe?: MoeConfig;
  /** Share of the largest inputs, by magnitude, that each linear map sees (Q-Sparse); all by default. */
  inputDensity?: number;
  /** Batches that hold a teacher's logits are learnt from both. */
  distillation?: Distillation;
}
