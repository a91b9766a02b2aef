export type { ByteSource, ModelFiles } from "./byteSource.js";
export { type Checkpoint, openCheckpoint } from "./checkpoint.js";
export { isJsonObject, parseJson, readJsonFile } from "./json.js";
export { memoryFiles, memorySource } from "./memory.js";
export type { ModelConfig, RopeConfig } from "./modelConfig.js";
export { parseModelConfig } from "./parseModelConfig.js";
export { readSafetensorsHeader } from "./safetensors.js";
export type { SafetensorsHeader, StoredTensor } from "./safetensorsHeader.js";
export { sha256Hex } from "./sha256.js";
