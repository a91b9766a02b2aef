/** For the folders to the right: where the numbers of a description lie in a checkpoint. Not part of the package's exports. */
export { checkArtifactMaps } from "./artifact.js";
export { compressedMatrix, unitMasksRecord } from "./artifactSchema.js";
export { createFile } from "./byteSink.js";
export { checkFinite, findNonFinite } from "./checkFinite.js";
export { tensorDeclaration } from "./encoding/declaration.js";
export { encodedBytes, encodeFactors, partName } from "./encoding/index.js";
export { plainTensor } from "./export/plainSafetensors.js";
export { isPlainFileName } from "./fileName.js";
export { hashOfSource } from "./fingerprint.js";
export { jsonBytes } from "./json.js";
export { isModelFile, isWeightFile } from "./modelFileNames.js";
export * from "./references.js";
export { bodyOf, type Fetch, noAnswer, type RetryOptions, request, statusError, withRetries } from "./retry.js";
export { writeSafetensorsFile } from "./safetensorsWriter.js";
export { takeStorage } from "./takeStorage.js";
export { decodeUtf8, readTextFile, readWhole } from "./textFile.js";
export {
  addedToken,
  addedTokens,
  byteLevelParts,
  idsOf,
  preTokenizerNamed,
  preTokenizers,
  sentencePieceBpeParts,
  sentencePieceUnigramParts,
  surround,
  tokenTypes,
} from "./tokenizer/index.js";
export { withOwnBlocks } from "./weights.js";
export { parseYaml, TaggedText, type YamlOptions } from "./yaml.js";
