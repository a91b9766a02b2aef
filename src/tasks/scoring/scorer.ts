import type { JobOptions } from "../../core/index.js";
import type { GenerationSettings } from "../definition/schema.js";
import type { LogLikelihood } from "../metrics/metrics.js";
import type { ContinuationRequest } from "../requests/requests.js";

/** A text that is to be continued. */
export interface PromptRequest {
  prompt: string;
  settings: GenerationSettings & { until: string[] };
}

/** What a scorer has run. */
export interface ScoringWork {
  /** Tokens that went through the model. */
  tokensRun: number;
  /** Tokens that would have, if every request had been run by itself. */
  tokensAlone: number;
}

/** What tasks are asked of: a model, or anything else that knows how probable texts are. */
export interface Scorer {
  /** Of each request, in order. */
  logLikelihoods(requests: readonly ContinuationRequest[], options?: JobOptions): Promise<LogLikelihood[]>;
  /** Log-likelihoods in nats of whole texts, each token scored once. */
  textLogLikelihoods(texts: readonly string[], options?: JobOptions): Promise<number[]>;
  /** What each prompt is continued with, up to the first of the texts that end it. */
  answers(requests: readonly PromptRequest[], options?: JobOptions): Promise<string[]>;
  readonly work: ScoringWork;
}
