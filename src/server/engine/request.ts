import type { LoadedAdapter, PassThresholds } from "../../model/index.js";
import type { Attention, KvChoice, PrefillPolicy, SamplingOptions } from "../../runtime/index.js";

/** What a sequence runs with. Sequences of equal keys may share the beginnings of their texts. */
export interface Variant {
  readonly key: string;
  /** Equal variants have one and the same object, so that their sequences run in one pass. */
  readonly thresholds?: PassThresholds;
  /** Which part of a prompt is sparse, where there are thresholds. */
  readonly prefill: PrefillPolicy;
  /** What is added to the weights; texts with different ones run in one pass. */
  readonly adapters?: readonly LoadedAdapter[];
  readonly attention?: Attention;
  readonly kv?: KvChoice;
}

/** Holds what is generated to a form. */
export interface Constraint extends Disposable {
  /** Makes the logits f32 [vocabSize] of tokens that cannot follow −∞. */
  mask(logits: Float32Array): Promise<void>;
  /** The token that was chosen. */
  accept(id: number): void;
}

/** One text to be continued. */
export interface GenerationRequest {
  readonly prompt: Uint32Array;
  /** 0 only runs the prompt. */
  readonly maxTokens: number;
  readonly stopIds: readonly number[];
  readonly stopStrings: readonly string[];
  /** See `GenerateOptions.continuesPrompt`. */
  readonly continuesPrompt: boolean;
  readonly sampling: SamplingOptions;
  /** Added to the logit of each token. */
  readonly bias: ReadonlyMap<number, number>;
  /** Taken off the logits of tokens that were generated already: once, and once for each time. */
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** How many alternatives each generated token comes with; undefined for no log probabilities. */
  readonly logprobs?: number;
  /** Whether the tokens of the prompt come with theirs. */
  readonly promptLogprobs: boolean;
  readonly constraint?: Constraint;
  readonly variant: Variant;
  /** Ends it within one step. */
  readonly signal: AbortSignal;
}

export interface TokenLogprob {
  readonly id: number;
  /** ln of the probability that the model gave it, before any sampling option; undefined for the first token of a text. */
  readonly logprob: number | undefined;
  /** The most probable ones, descending. */
  readonly top: readonly { id: number; logprob: number }[];
}

export type FinishReason = "stop" | "length";

/** What happens to a request, in order: the prompt once, a token any number of times; the last one has `finish`. */
export type GenerationEvent =
  | {
      readonly kind: "prompt";
      readonly promptTokens: number;
      /** Of those, tokens that another request had run already. */
      readonly cachedTokens: number;
      readonly logprobs?: readonly TokenLogprob[];
      /** Only where nothing is generated. */
      readonly finish?: FinishReason;
    }
  | {
      readonly kind: "token";
      readonly id: number;
      /** Text that the token made certain. */
      readonly text: string;
      readonly logprob?: TokenLogprob;
      readonly finish?: FinishReason;
    };
