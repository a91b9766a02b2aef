/// <reference lib="esnext.disposable" preserve="true" />
export {
  type FinishReason,
  type GenerateOptions,
  type GenerationStep,
  type GenerationSummary,
  generate,
} from "./generate.js";
export { type GenerateChatOptions, generateChat } from "./generateChat.js";
export { collect, generateText } from "./generateText.js";
export { logProbability } from "./logits.js";
export { type PrefillPolicy, sparseFromPosition } from "./prefillPolicy.js";
export { draw, logitFilters, Sampler, type SamplingOptions } from "./samplers.js";
export { type RunOptions, Sequence, type SequenceOptions } from "./sequence.js";
export { StopStrings } from "./stopStrings.js";
export { TextStream } from "./textStream.js";
export type { GenerationTimings } from "./timings.js";
