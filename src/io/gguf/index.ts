export { type GgufTypeId, ggufTypeIds } from "./encodeBlocks.js";
export { ggufFileName, ggufFiles } from "./files.js";
export { type WriteGgufOptions, writeGguf } from "./writeGguf.js";
