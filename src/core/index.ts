/// <reference lib="esnext.disposable" preserve="true" />
export { type ActivationFunction, activationFunctions, type GateFunction } from "./activationFunction.js";
export {
  BusyError,
  DeviceError,
  FormatError,
  type FormatErrorDetails,
  NetworkError,
  NonFiniteError,
  ProblemsError,
  RarefyError,
  StorageError,
  UsageError,
} from "./errors.js";
export { breathe } from "./eventLoop.js";
export { type JobOptions, type OnProgress, type ProgressEvent, Stage } from "./progress.js";
export { quote } from "./quote.js";
export { Random } from "./random.js";
export { meanAndDeviation, median, spread } from "./statistics.js";
