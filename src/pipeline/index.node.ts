/** The parts of `pipeline` that need Node.js; in browsers nothing imports this file. */

export {
  type CompressDirectoryOptions,
  type CompressedDirectory,
  compressToDirectory,
} from "./compress/jobDirectory.node.js";
