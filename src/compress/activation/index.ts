export {
  type Allocation,
  type AllocationId,
  type AllocationRequest,
  type AllocationRow,
  allocationEvaluations,
  allocations,
  blockSparsity,
  nearestRow,
} from "./allocation.js";
export { blockOutputError } from "./blockError.js";
export { ActivationHistogram } from "./histogram.js";
export { type DynamicSparsityOptions, keepLargest, sparsifyByRatio } from "./largest.js";
export {
  countPredictions,
  type NeuronPredictor,
  type PredictionCounts,
  PredictorTrainer,
  type PredictorTraining,
  predictionShares,
  predictScores,
  startPredictor,
} from "./neuronPredictor.js";
export { type ThresholdEstimator, type ThresholdEstimatorId, thresholdEstimators } from "./thresholds.js";
