import type { ModelConfig } from "../../arch/index.js";

/** Families whose forward pass is written down for training, under these names of tensors. */
export const trainable: readonly string[] = ["llama", "mistral", "mixtral", "qwen2", "qwen3"];

export const isTrainable = ({ modelType }: Pick<ModelConfig, "modelType">): boolean => trainable.includes(modelType);
