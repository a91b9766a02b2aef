export {
  fitLatency,
  type LatencyModel,
  latencyOf,
  searchMasksByLatency,
  type TimedUnits,
} from "./latency.js";
export { fisherCost, fisherDiagonal, rearrangeMask, type UnitGradients } from "./rearrange.js";
export { type ByUnit, searchMasks, type UnitCosts, type UnitImportances, type UnitMasks } from "./search.js";
export { type MaskProblem, tuneMask } from "./tune.js";
