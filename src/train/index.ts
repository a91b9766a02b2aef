export {
  type Cell,
  type CellResult,
  type Experiment,
  type ExperimentReport,
  type FinishedCell,
  type ResultTable,
  type Scale,
  scales,
} from "./experiments/contract.js";
export { experiments } from "./experiments/index.js";
export { htmlPage, markdownPage } from "./experiments/pages.js";
export { type CellStore, type ExperimentOptions, runExperiment } from "./experiments/runExperiment.js";
