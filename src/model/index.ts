/// <reference lib="esnext.disposable" preserve="true" />
export { type Adaptation, adaptationsOf } from "./adaptations.js";
export { loadAdapter, withAdapter } from "./adapters.js";
export type { Blocks } from "./blocks.js";
export {
  ExpertRanks,
  portLink,
  type RankLink,
  type RankModel,
  type RankPort,
  type RankTraffic,
  reportFailure,
  type ServeExpertsOptions,
  serveExperts,
} from "./expertRanks/index.js";
export { countParameters, kvBytesPerPosition, type ParameterCounts, packedMatrixBytes } from "./footprint.js";
export { type DecoderDescription, describeDecoder, loadModel } from "./loadModel.js";
export type { LoadModelOptions } from "./loadOptions.js";
export { checkSound, explainNonFinite, firstNonFiniteOf } from "./nonFinite.js";
export {
  layoutFor,
  type OffloadCounters,
  type OffloadDescription,
  type OffloadedFile,
  type OffloadLayout,
  type OffloadOptions,
  type OffloadPlan,
  type OffloadShape,
  offloadBytesName,
  offloadDescriptionName,
  offloadLayouts,
  openOffloaded,
  type Predictors,
  type PredictorsDescription,
  type PredictorWeights,
  predictorsDescriptionName,
  predictorsWeightsName,
  readPredictors,
  serializeOffload,
  writeOffloaded,
  writePredictors,
} from "./offload/index.js";
export { type SparsityProfile, sparsityProfile } from "./sparsityProfile.js";
export { describeChoices, type MatrixChoice, type RunsAs, runsAs, type Structure, structures } from "./structure.js";
export type { TensorSource } from "./tensorRows.js";
export type {
  ActivationThresholds,
  CacheOptions,
  EntryMoves,
  FindSight,
  ForwardOptions,
  GateCounts,
  InputShare,
  LayerQueries,
  LoadedAdapter,
  Model,
  PassThresholds,
  SequencePart,
  SlotRun,
  Tap,
  TappedSlots,
  TogetherOptions,
} from "./types.js";
