export { activationMethods, type MethodId } from "./activationMethods.js";
export { type BlockLayer, type BlockwiseOptions, type CompressedBlock, compressBlockwise } from "./blockwise.js";
export { type Calibration, type CalibrationOptions, calibrateActivationSparsity } from "./calibrate.js";
export { type ReplacedTensor, replaceTensors } from "./checkpointView.js";
export { expectedBytesSaved } from "./expectedBytes.js";
export type { SiteStatistics } from "./layerHistograms.js";
export { type OpenedModel, type OpenModelOptions, openModel } from "./openModel.js";
export { toThresholds } from "./toThresholds.js";
