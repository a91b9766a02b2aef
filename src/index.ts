/// <reference lib="esnext.disposable" preserve="true" />
/**
 * The main path in one import: open a model, generate, calibrate, measure. Everything else is under the folder that it
 * belongs to: `rarefy/io`, `rarefy/pack`, `rarefy/kernels` …; what needs Node.js is under `rarefy/io/node`.
 */
export * from "./core/index.js";
export {
  evaluateQuality,
  formatResultRows,
  measureSpeed,
  type ResultRow,
  resultRow,
  type Variant,
} from "./eval/index.js";
export { type Backend, openBackend } from "./kernels/index.js";
export type { ActivationThresholds, Model } from "./model/index.js";
export type { WeightFormatId } from "./pack/index.js";
export {
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
  type OpenedModel,
  type OpenModelOptions,
  openModel,
  toThresholds,
} from "./pipeline/index.js";
export {
  collect,
  type GenerateOptions,
  type GenerationStep,
  type GenerationSummary,
  generate,
  generateChat,
  generateText,
  Sequence,
} from "./runtime/index.js";
export { type ChatMessage, loadChatTemplate, loadTokenizer, type Tokenizer, tokenizeText } from "./text/index.js";
