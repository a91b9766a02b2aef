/** The parts of `io` that need Node.js; in browsers nothing imports this file. */

export { directorySinks, linkOrCopyFile, writeFileAtomic } from "./atomic.node.js";
export { directoryFiles, openFile } from "./file.node.js";
export { type ResolveOptions, resolveModel } from "./hub.node.js";
export { buildModelDirectory, type ModelDirectoryBuilder } from "./modelDirectory.node.js";
