/// <reference lib="esnext.disposable" preserve="true" />
export { type AdaptedObjective, adaptedObjective, modulesOf } from "./adapters/adaptedObjective.js";
export type {
  AdaptedModule,
  AdaptedPiece,
  AdapterMethod,
  ModulePiece,
  RoutedAdapterMethod,
} from "./adapters/contract.js";
export { adapterMethods, routedAdapterMethods } from "./adapters/index.js";
export { type LoraHubOptions, type LoraHubResult, loraHub } from "./adapters/loraHub.js";
export { type RoutedBase, routedObjective } from "./adapters/routedObjective.js";
export { type StreamedBase, streamedObjective } from "./adapters/streamedObjective.js";
export { type LabelledText, parseLabelledText } from "./data/labelledText.js";
export {
  parseRecords,
  type RecordTokens,
  RecordWindows,
  type TrainingRecord,
  tokenizeRecords,
} from "./data/records.js";
export { documentSeparator, TokenWindows, tokenizeDocuments, type Windows } from "./data/tokens.js";
export { type EngineDevice, startEngine, stopEngine } from "./engine/engine.js";
export { type DecoderObjectiveOptions, decoderObjective } from "./engine/open.js";
export {
  type Cell,
  type CellInputs,
  type CellOutcome,
  type CellResult,
  type CellState,
  type Experiment,
  type ExperimentReport,
  type FinishedCell,
  type ResultTable,
  type Scale,
  scales,
} from "./experiments/contract.js";
export { experiments } from "./experiments/index.js";
export {
  type CellStore,
  type CellThreads,
  type ExperimentOptions,
  runCells,
  runExperiment,
} from "./experiments/runExperiment.js";
export { gradientSource } from "./gradientSource.js";
export {
  meanLoss,
  readWeights,
  type StoredFloat,
  type StoredParameter,
  trainableConfig,
  writeWeights,
} from "./languageModel.js";
export type { MethodContext, MethodRun, TrainMethod } from "./methods/contract.js";
export { trainMethods } from "./methods/index.js";
export { type ClusterKind, type ClusterOptions, type ClusterPlan, clusterPlan } from "./models/clusterOptions.js";
export {
  type ClusteredSizes,
  centroidControl,
  clusterParameters,
  initialClusters,
} from "./models/clusterParameters.js";
export {
  type ContextPruningSettings,
  contextControl,
  contextPruningSchema,
  contextPruningSettings,
  initialInteractions,
  nothingDropped,
  prunableConfig,
} from "./models/contextPruning.js";
export { controllerControl } from "./models/controllers.js";
export {
  type Distillation,
  type DistillationId,
  type DivergenceId,
  distillationIds,
  divergenceIds,
  type TeacherModel,
  teacherName,
} from "./models/distillation.js";
export { joinControls } from "./models/joinControls.js";
export {
  gateControl,
  gatedConfig,
  gateTrainings,
  gateUsages,
  initialGates,
  type LayerGates,
  parseLayerGates,
} from "./models/layerGates.js";
export {
  type FeatureKind,
  initialProjections,
  type MatchedBlocks,
  type Matching,
  type MatchingOptions,
  matchingOf,
  matchingSchema,
  type Shown,
  shownFor,
} from "./models/matchingOptions.js";
export { type MiniLlmOptions, miniLlmSchema } from "./models/miniLlmOptions.js";
export { initialWeights, type ModelParameter, modelParameters } from "./models/parameters.js";
export type { RouterOptions, Routing } from "./models/routerOptions.js";
export { routings, type TrainedMixture, trainedMixture } from "./models/routing.js";
export type { Batch, BatchArray, BatchControl, LossAndGradients, Objective } from "./objective.js";
export { adamW, type OptimizerOptions } from "./optimizers/adamW.js";
export { applyStep, chain, type Link } from "./optimizers/link.js";
export { constant, cosine, type Schedule } from "./optimizers/schedule.js";
export { type LogRecord, type RunOptions, runTraining } from "./runTraining.js";
export type { Candidate, Search, SearchSpace } from "./search/contract.js";
export { searches } from "./search/index.js";
export { type MinimiseOptions, minimise } from "./search/minimise.js";
export type { State } from "./state.js";
export { readState, writeState } from "./storedState.js";
export { type EndpointTeacherOptions, endpointTeacher } from "./teaching/endpointTeacher.js";
export { type TeachingForm, type TeachingFormId, teachingForms } from "./teaching/forms.js";
export {
  type LessonSettings,
  Lessons,
  type RecordTeacher,
  type TeachingAnswer,
  type TeachingQuestion,
} from "./teaching/lessons.js";
export { type ModelTeacherOptions, modelTeacher } from "./teaching/modelTeacher.js";
export { type CutOptions, cutPrompts, parsePrompts, type TeachingPrompt } from "./teaching/prompts.js";
export type { PassOptions, TraceOptions } from "./trace/options.js";
export { type StepResult, Training, type TrainingOptions } from "./training.js";
export type { FloatArray, ParameterInfo, Values } from "./values.js";
