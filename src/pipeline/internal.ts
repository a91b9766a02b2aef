/** For the folders to the right: text as it enters the first block. Not part of the package's exports. */
export * from "./channels/index.js";
export { jobIn } from "./compress/compressJob.js";
export { embedWindows } from "./compress/embedWindows.js";
export { checkCompression } from "./compress/plan.js";
export { isJobFile } from "./compress/workspace.js";
export { weightsOf } from "./openModel.js";
