/** The parts of `io` that need Node.js; in browsers nothing imports this file. */

export { directorySinks, linkOrCopyFile, writeFileAtomic } from "./atomic.node.js";
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
  buildModelDirectory,
  type ClaimedOutput,
  claimOutput,
  type ModelDirectoryBuilder,
} from "./modelDirectory.node.js";
