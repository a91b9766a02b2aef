/** For the folders to the right: how results are said in words. Not part of the package's exports. */
export { measuredSpeed, speedsDiffer } from "./measuredSpeed.js";
export { runsAsInWords, speedRatio } from "./resultRow.js";
