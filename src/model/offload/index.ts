export {
  type OffloadDescription,
  type OffloadedFile,
  offloadBytesName,
  offloadDescriptionName,
  openOffloaded,
  serializeOffload,
} from "./description.js";
export type { OffloadOptions, OffloadPlan } from "./options.js";
export { layoutFor, type OffloadLayout, type OffloadShape, offloadLayouts } from "./placement.js";
export {
  type Predictors,
  type PredictorsDescription,
  type PredictorWeights,
  predictorsDescriptionName,
  predictorsWeightsName,
  readPredictors,
  writePredictors,
} from "./predictors.js";
export type { OffloadCounters } from "./residency.js";
export { writeOffloaded } from "./write.js";
