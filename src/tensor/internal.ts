/** For the folders to the right: selection of the largest, and the rows of a tensor. Not part of the package's exports. */
export { isDType } from "./dtype.js";
export { findThreshold, keepAbove, magnitudeOf, ThresholdSearch, topS } from "./select.js";
export { rowsOfShape } from "./tensor.js";
