export { type GgufTypeId, ggufTypeIds } from "./encodeBlocks.js";
export { ggufFiles } from "./files.js";
export { ggufFileName } from "./names.js";
export { type WriteGgufOptions, writeGguf } from "./writeGguf.js";
