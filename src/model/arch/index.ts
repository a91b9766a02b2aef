import type { ModelConfig } from "../../io/index.js";
import type { DecoderTraits } from "../layout.js";

/** One family of decoders: how its checkpoints differ from plain Llama. */
export interface Architecture {
  traits(config: ModelConfig): DecoderTraits;
}

/** `model_type` of config.json → its file. */
export const architectures: Readonly<Record<string, () => Promise<{ architecture: Architecture }>>> = {
  llama: () => import("./llama.js"),
  mistral: () => import("./mistral.js"),
  mixtral: () => import("./mixtral.js"),
  qwen2: () => import("./qwen2.js"),
  qwen3: () => import("./qwen3.js"),
};
