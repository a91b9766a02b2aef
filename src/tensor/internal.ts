/** For the folders to the right: selection of the largest, the rows of a tensor, matrices as factors. Not part of the package's exports. */
export { isDType } from "./dtype.js";
export {
  balancedModes,
  type ChainStep,
  chainProblem,
  chainShapes,
  digitsOf,
  factorChain,
  factorMatrix,
  factorPartShapes,
  factorProblems,
  factorRows,
  morphemeNormEpsilon,
  type PartShape,
  productOfModes,
  type RowWriter,
  trainShape,
} from "./factors/index.js";
export { findThreshold, keepAbove, magnitudeOf, ThresholdSearch, topS } from "./select.js";
export { rowsOfShape } from "./tensor.js";
