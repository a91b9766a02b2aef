/** For the folders to the right: how results are said in words, and what evaluations are made of. Not part of the package's exports. */

export { type LogitRows, rowsPerChunk, withLogSumExp } from "./logits.js";
export { measuredSpeed, speedsDiffer } from "./measuredSpeed.js";
export { runsAsInWords, speedRatio } from "./resultRow.js";
export { differenceInWords, metricInWords } from "./taskTable.js";
export { thresholdsOf } from "./variant.js";
export { evaluationWindows, needsBegin } from "./windows.js";
