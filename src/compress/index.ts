export * from "./activation/index.js";
export { checkRecipe, type ResolvedStage } from "./checkRecipe.js";
export type {
  ActivationQuantization,
  AnyOptions,
  CoupledGroup,
  CoupledMember,
  Layer,
  LowRankFactors,
  LowRankMethod,
  Method,
  PruneMethod,
  PruneResult,
  QuantizeMethod,
  QuantizeResult,
  ScaleMethod,
  Shape,
  Spectrum,
} from "./contract.js";
export {
  type ExpertMap,
  expertMerges,
  type MergeMethod,
  matchHiddenUnits,
  mergeGroups,
  mergeShares,
  permuted,
} from "./expertMerging.js";
export { type ExpertMethod, type ExpertStatistics, expertMethods } from "./expertSelection.js";
export { lowRankMethods } from "./lowrank/index.js";
export { pruneMethods } from "./methods/index.js";
export { type Pattern, type PatternType, parsePattern, patternName, type Scope, sparsityOf } from "./pattern.js";
export { presetRecipe, presets } from "./presets.js";
export { quantizeMethods, scaleMethods } from "./quantize/index.js";
export { maskMethods, parseRecipe, type Recipe, type RecipeInput, type RecipeStage } from "./recipe.js";
export type { RecipeTarget, TargetMatrix } from "./recipeTarget.js";
export { parseRecipeText } from "./recipeText.js";
export { type ReconstructionError, reconstructionError } from "./reconstruction.js";
export { type Counting, selectMask } from "./select.js";
export {
  type GradientStatistic,
  gradientStatistics,
  InputStatistics,
  type StatisticId,
  StatisticsAccumulator,
  type StatisticValues,
} from "./statistics.js";
export {
  type FactorSize,
  type FittedFactors,
  type TableShape,
  type TensorMethod,
  tensorMethods,
} from "./tensors/index.js";
