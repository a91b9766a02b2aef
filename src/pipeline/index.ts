export { activationMethods, type MethodId } from "./activationMethods.js";
export { type Calibration, type CalibrationOptions, calibrateActivationSparsity } from "./calibrate.js";
export { expectedBytesSaved } from "./expectedBytes.js";
export type { SiteStatistics } from "./layerHistograms.js";
export { type OpenedModel, type OpenModelOptions, openModel } from "./openModel.js";
export { toThresholds } from "./toThresholds.js";
