/// <reference lib="esnext.disposable" preserve="true" />
export {
  type CalibrateRouteOptions,
  type Cloud,
  type CloudOptions,
  calibrateRoute,
  connectCloud,
  expectedTokenMs,
  parseRoute,
  type Route,
  type RouteRule,
  type Routing,
  routeRules,
} from "./cloud/index.js";
export { type Classification, classify, type EncodeOptions, embedText, type Pooling } from "./encode.js";
export type { ExitCounts } from "./exits/earlyExit.js";
export {
  type ExitDecider,
  type ExitFeatures,
  type ExitRule,
  type Exits,
  exitRules,
  parseExits,
} from "./exits/index.js";
export {
  type FinishReason,
  type GenerateOptions,
  type GenerationStep,
  type GenerationSummary,
  generate,
} from "./generate.js";
export { type GenerateChatOptions, generateChat } from "./generateChat.js";
export { collect, generateText } from "./generateText.js";
export { type SamplingDefaults, samplingDefaults } from "./generationConfig.js";
export { type KvChoice, kvPolicies, parseKv } from "./kv/index.js";
export { SequenceMemory } from "./kv/memory.js";
export type { MemoryOptions } from "./kv/memoryOptions.js";
export { KvPages, type KvPagesOptions } from "./kv/pages.js";
export type { Held, KvEviction, KvPolicy } from "./kv/policy.js";
export { logProbability } from "./logits.js";
export { type Choosable, type ParameterRule, usage } from "./parameters.js";
export { type PrefillPolicy, sparseFromPosition } from "./prefillPolicy.js";
export { draw, logitFilters, Sampler, type SamplingOptions } from "./samplers.js";
export { type RunOptions, Sequence, type SequenceOptions } from "./sequence.js";
export { type Attention, attentionPatterns, parseAttention } from "./sight/index.js";
export type { AttentionPattern, Viewer } from "./sight/pattern.js";
export { parseSparsity, type Sparsity, type SparsityKind, sparsityKinds } from "./sparsity.js";
export {
  type Draft,
  type Drafter,
  layersDraft,
  lookupDraft,
  modelDraft,
  type Proposal,
  type Speculation,
} from "./speculate/index.js";
export { StopStrings } from "./stopStrings.js";
export { TextStream } from "./textStream.js";
export type { GenerationTimings } from "./timings.js";
export { runTogether, type TogetherLogits, type TogetherTurn } from "./together.js";
