/// <reference lib="esnext.disposable" preserve="true" />
export { activationMethods, type MethodId } from "./activationMethods.js";
export {
  type CalibratedSparsities,
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
} from "./calibrate.js";
export { type CalibratedExtras, calibratedArtifact } from "./calibratedArtifact.js";
export { type CompressedModel, type JobFiles, type JobTimes, runCompression } from "./compress/compressJob.js";
export { planCompression } from "./compress/plan.js";
export type { CompressionPlan, CompressOptions, Estimate, LabelledTokens } from "./compress/planned.js";
export type { StorageOptions } from "./compress/storeBlock.js";
export { memoryWorkspace, type Workspace } from "./compress/workspace.js";
export { type ExitTrainingOptions, trainExits } from "./exits/trainExits.js";
export { expectedBytesSaved } from "./expectedBytes.js";
export * from "./experts/index.js";
export type {
  BackwardOptions,
  BlockGradients,
  BlockUnitGradients,
  GradientSource,
  TextWindows,
} from "./gradients.js";
export type { SiteStatistics } from "./layerHistograms.js";
export { type OpenedModel, type OpenModelOptions, openModel } from "./openModel.js";
export { thresholdsAt } from "./thresholdsAt.js";
export { toThresholds } from "./toThresholds.js";
export { type TrainedPredictor, type TrainPredictorsOptions, trainPredictors } from "./trainPredictors.js";
export { countUnitUses, type UnitUsesOptions } from "./unitUses.js";
