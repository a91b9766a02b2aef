export {
  type Adapter,
  adapterConfigName,
  adapterWeightsName,
  type ExpertRouter,
  type LoraPair,
  type PairMixture,
  type Rescaling,
  type RescalingMixture,
} from "./adapter/adapter.js";
export { combineAdapters, type LoraAdapter } from "./adapter/combine.js";
export { addPair, rescale } from "./adapter/merge.js";
export { readAdapter } from "./adapter/readAdapter.js";
export { writeAdapter } from "./adapter/writeAdapter.js";
export { artifactFileName, parseArtifact, readArtifact, serializeArtifact } from "./artifact.js";
export {
  type ActivationSparsity,
  type Artifact,
  artifactVersion,
  type CompressedMatrix,
  type Compression,
  compressionOf,
  type ExitClassifiers,
  type SiteQuantiles,
  trainingOf,
  type UnitMasksRecord,
} from "./artifactSchema.js";
export { blobFiles, blobSource } from "./blob.js";
export { type ByteSink, type FileSinks, memorySinks } from "./byteSink.js";
export type { ByteSource, LocalModelFiles, ModelFiles } from "./byteSource.js";
export { type Checkpoint, openCheckpoint } from "./checkpoint.js";
export {
  type EncodedTensors,
  encodeTensor,
  type FloatDType,
  type GridCodes,
  type LogicalTensor,
  type StoredFactors,
  type TensorDeclaration,
  type TensorGrid,
  type TensorToEncode,
} from "./encoding/index.js";
export { type Fingerprint, fingerprint } from "./fingerprint.js";
export { type GgufTypeId, ggufFileName, ggufFiles, type WriteGgufOptions, writeGguf } from "./gguf/index.js";
export { type HttpOptions, openUrl, urlFiles } from "./http.js";
export { isJsonObject, parseJson, readJsonFile } from "./json.js";
export { memoryFiles, memorySource } from "./memory.js";
export { isCompanionFile } from "./modelFileNames.js";
export {
  ModelStore,
  type ModelStoreOptions,
  type StoredFilesOptions,
  type StoredModelFiles,
  storedFiles,
  type UnfinishedModel,
} from "./opfs.js";
export type { StoredModel } from "./opfsManifest.js";
export { readSafetensorsHeader } from "./safetensors.js";
export type { SafetensorsHeader, StoredTensor } from "./safetensorsHeader.js";
export { type TensorToWrite, type WriteOptions, writeSafetensors } from "./safetensorsWriter.js";
export { sha256Hex } from "./sha256.js";
export type { SentencePieces } from "./tokenizer/index.js";
export type { Warning } from "./warning.js";
export { plainWeights, type Weights } from "./weights.js";
