/** The parts of `io` that need Node.js; in browsers nothing imports this file. */

export { directorySinks, linkOrCopyFile, writeFileAtomic, writeFilesAtomic } from "./atomic.node.js";
export {
  type BundledModel,
  type BundledText,
  bundledModel,
  bundledText,
  isBundledModel,
  isBundledText,
} from "./bundled.node.js";
export {
  type ExportFormat,
  type ExportOptions,
  type ExportResult,
  type ExportType,
  exportModel,
  exportTypes,
} from "./export/exportModel.node.js";
export { directoryFiles, openFile } from "./file.node.js";
export { localGgufFiles } from "./gguf/local.node.js";
export { type ResolveOptions, resolveModel } from "./hub.node.js";
export { makeDirectory } from "./makeDirectory.node.js";
export {
  type BuildOptions,
  buildModelDirectory,
  type ModelDirectoryBuilder,
  modelDirectoryBuilder,
} from "./modelDirectory.node.js";
export { buildDirectory } from "./output/build.node.js";
export {
  type ClaimedOutput,
  type ClaimOptions,
  checkOutput,
  claimOutput,
  type OutputOwner,
  removeOutput,
} from "./output/claim.node.js";
export { JobDirectory } from "./output/jobDirectory.node.js";
export { type Lock, type LockOptions, lockPath } from "./output/lock.node.js";
export { readText } from "./readText.node.js";
