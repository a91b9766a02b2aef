export * from "./activation/index.js";
export type {
  ActivationQuantization,
  AnyOptions,
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
export { pruneMethods } from "./methods/index.js";
export {
  type Pattern,
  type PatternType,
  parsePattern,
  patternName,
  patternSchema,
  type Scope,
  shapeProblems,
  sparsityOf,
} from "./pattern.js";
export { type Counting, selectMask } from "./select.js";
export { InputStatistics, type StatisticId, StatisticsAccumulator, type StatisticValues } from "./statistics.js";
