/** For the folders to the right: what units, factors and channels are taken apart with, and systems solved. Not part of the package's exports. */
export { keptExperts } from "./expertSelection.js";
export { matchesGlob } from "./glob.js";
export { type ScoredTensor, shareGlobally } from "./globalBudget.js";
export { poolHeads } from "./headPooling.js";
export { choleskyInPlace, solveCholesky, symmetricEigen } from "./linalg/index.js";
export { factorSize, productOf, rankForRatio, residualOf, shareRanks } from "./lowrank/rank.js";
export { patternSchema, shapeProblems } from "./pattern.js";
export { divideChannels, divideColumns, divideRows, multiplyColumns } from "./quantize/fold.js";
export { integerProduct } from "./quantize/integerProduct.js";
export {
  chooseUnits,
  keepUnits,
  keepUnitsOfVector,
  repairColumns,
  type UnitType,
  unitMask,
  unitScores,
  unitsKept,
} from "./structured.js";
export * from "./unitMasks/index.js";
