/** Long work from files to files, for Node.js: what the command line runs, and anything else that wants the same. */

export type { AdapterSettings } from "./adapterTraining.js";
export { type BullQueueOptions, openBullQueue } from "./bullQueue.node.js";
export {
  type CalibratedDirectory,
  type CalibrateToDirectoryOptions,
  calibrateToDirectory,
} from "./calibrateToDirectory.js";
export { type CompressAndMeasureOptions, compressAndMeasure, type MeasuredCompression } from "./compressAndMeasure.js";
export { type CompressDirectoryOptions, type CompressedDirectory, compressToDirectory } from "./compressToDirectory.js";
export {
  type EvaluationTask,
  type EvaluationText,
  evaluateOverQueue,
  type QueuedEvaluation,
} from "./evaluationJob.js";
export type { ExperimentPlaces } from "./experimentFiles.js";
export type { ExperimentWorkers } from "./experimentJob.js";
export { experiments } from "./experiments/index.js";
export {
  type OpenExpertRanksOptions,
  openExpertRanks,
  type RankTask,
} from "./expertRanks.js";
export { exportAndCompare } from "./exportAndCompare.js";
export { jobModelOf, jobPath, tokensSha256, type WorkplaceOptions } from "./jobParts.js";
export { type Job, type JobQueue, type JobReports, memoryQueue, type ProcessOptions } from "./jobQueue.js";
export { type LoraHubDirectory, type LoraHubToDirectoryOptions, loraHubToDirectory } from "./loraHubToDirectory.js";
export { type Machine, machine, peakResidentBytes, processorMs } from "./machine.js";
export { type RareExpert, rareExperts, weightBytesOf } from "./measures.js";
export { type MergeAdapterOptions, type MergedAdapter, mergeAdapterToDirectory } from "./mergeAdapterToDirectory.js";
export {
  type OffloadedDirectory,
  type OffloadToDirectoryOptions,
  offloadToDirectory,
  type UnitUse,
} from "./offloadToDirectory.js";
export { type OpenModelTeacherOptions, openModelTeacher } from "./openModelTeacher.js";
export { type PredictedDirectory, type PredictToDirectoryOptions, predictToDirectory } from "./predictToDirectory.js";
export {
  type PruneChannelsOptions,
  type PrunedChannelsDirectory,
  pruneChannelsToDirectory,
} from "./pruneChannelsToDirectory.js";
export {
  type PrunedExpertsDirectory,
  type PrunedExpertsLayer,
  type PruneExpertsOptions,
  pruneExpertsToDirectory,
} from "./pruneExpertsToDirectory.js";
export type { RankKind } from "./rankKinds.js";
export {
  type ExperimentDirectoryOptions,
  type ExperimentDocument,
  runExperimentCells,
  runExperimentDirectory,
} from "./runExperimentDirectory.js";
export {
  type SharedLayersDirectory,
  type ShareLayersOptions,
  shareLayersToDirectory,
} from "./shareLayersToDirectory.js";
export { streamLink } from "./streamLink.js";
export { runSweep, type SweepDocument } from "./sweep.js";
export { type SweepCandidate, type SweepLevel, sweepCandidates } from "./sweepCandidates.js";
export type { SweepEntry } from "./sweepEntries.js";
export type { SweepOptions } from "./sweepMeasure.js";
export type { JobText, SweepWorkers } from "./sweepWorkers.js";
export { type TaughtFile, type TeachToFileOptions, teachToFile } from "./teachToFile.js";
export {
  type ExitsDirectory,
  type TrainExitsToDirectoryOptions,
  trainExitsToDirectory,
} from "./trainExitsToDirectory.js";
export { type TrainingSettings, trainingDefaults } from "./trainingSettings.js";
export type { TrainingTokens } from "./trainingTokens.js";
export {
  type TrainedDirectory,
  type TrainToDirectoryOptions,
  trainToDirectory,
} from "./trainToDirectory.js";
export { runWorker, type WorkerOptions } from "./worker.js";
