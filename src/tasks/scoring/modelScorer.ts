import { breathe, type JobOptions, Stage, UsageError } from "../../core/index.js";
import type { Variant } from "../../eval/index.js";
import { evaluationWindows, thresholdsOf, withLogSumExp } from "../../eval/internal.js";
import { checkSound, explainNonFinite, firstNonFiniteOf } from "../../model/index.js";
import { checkGenerates } from "../../model/internal.js";
import { collect, generate, type PrefillPolicy, Sequence, sparseFromPosition } from "../../runtime/index.js";
import type { Tokenizer } from "../../text/index.js";
import type { LogLikelihood } from "../metrics/metrics.js";
import type { ContinuationRequest } from "../requests/requests.js";
import { type EncodingOptions, RequestEncoder, type TokenRequest } from "./encodeRequests.js";
import type { PromptRequest, Scorer, ScoringWork } from "./scorer.js";
import { SharedScoring } from "./sharedScoring.js";

/** Of an answer that names no length, as in lm-evaluation-harness. */
const defaultAnswerTokens = 256;

/** How a model is asked. */
export interface ModelScorerOptions extends EncodingOptions {
  /** Which tokens of a context see the thresholds; default `{ denseFirst: 0 }`, all. Those behind it do. */
  prefill?: PrefillPolicy;
  /** Of answers that are drawn. Default 1234. */
  seed?: number;
}

/**
 * Asks a model. Continuations of one context share its pass; with an attention pattern or a KV policy each is run by itself, token
 * by token, as in decoding.
 * @throws UsageError for a model that reads texts as a whole, FormatError for one with damaged weights
 */
export function modelScorer(variant: Variant, tokenizer: Tokenizer, options: ModelScorerOptions = {}): Scorer {
  checkGenerates(variant.model);
  checkSound(variant.model);
  if (variant.exits !== undefined) {
    throw new UsageError(
      `${variant.name} leaves its layers early, and tasks are asked of whole models: measure it by a text`,
    );
  }
  return new ModelScorer(variant, tokenizer, options);
}

class ModelScorer implements Scorer {
  readonly work: ScoringWork = { tokensRun: 0, tokensAlone: 0 };
  readonly #encoder: RequestEncoder;
  readonly #prefill: PrefillPolicy;
  readonly #shared: SharedScoring;

  constructor(
    readonly variant: Variant,
    readonly tokenizer: Tokenizer,
    readonly options: ModelScorerOptions,
  ) {
    const { model } = variant;
    this.#encoder = new RequestEncoder(model, tokenizer, options);
    this.#prefill = options.prefill ?? { denseFirst: 0 };
    this.#shared = new SharedScoring(model, thresholdsOf(variant), this.#prefill, this.work);
  }

  async logLikelihoods(requests: readonly ContinuationRequest[], options: JobOptions = {}): Promise<LogLikelihood[]> {
    const encoded: TokenRequest[] = [];
    for (const [i, request] of requests.entries()) {
      if (i % 64 === 0) await breathe(options.signal);
      encoded.push(this.#encoder.continuation(request));
    }
    return this.#score(encoded, options);
  }

  async textLogLikelihoods(texts: readonly string[], options: JobOptions = {}): Promise<number[]> {
    const { maxTokens, prefix } = this.#encoder;
    const windows: TokenRequest[] = [];
    const owners: number[] = [];
    for (const [t, text] of texts.entries()) {
      await breathe(options.signal);
      const cut = {
        convention: "lmEval",
        window: maxTokens,
        stride: maxTokens,
        begin: prefix,
        maxWindows: Number.MAX_SAFE_INTEGER,
      } as const;
      const parts = evaluationWindows(this.#encoder.encode(text), cut);
      for (let w = 0; w < parts.count; w++) {
        const { inputs, targets, firstRow } = parts.at(w);
        windows.push({ context: inputs.subarray(0, firstRow + 1), continuation: targets });
        owners.push(t);
      }
    }
    const sums = texts.map(() => 0);
    for (const [w, { logLikelihood }] of (await this.#score(windows, options)).entries())
      sums[owners[w]] += logLikelihood;
    return sums;
  }

  #score(requests: readonly TokenRequest[], options: JobOptions): Promise<LogLikelihood[]> {
    const { attention, kv } = this.variant;
    return attention === undefined && kv === undefined
      ? this.#shared.score(requests, options)
      : this.#alone(requests, options);
  }

  /** Each request by itself: its context as a prompt, then token after token. */
  async #alone(requests: readonly TokenRequest[], { signal, onProgress }: JobOptions): Promise<LogLikelihood[]> {
    const { model, attention, kv } = this.variant;
    const { backend, config } = model;
    const stage = new Stage("score", requests.length, "continuations", onProgress);
    const results: LogLikelihood[] = [];
    for (const { context, continuation } of requests) {
      const length = context.length + continuation.length - 1;
      using sequence = new Sequence(model, length, { thresholds: thresholdsOf(this.variant), attention, kv });
      const result: LogLikelihood = { logLikelihood: 0, isGreedy: true };
      for (const [i, target] of continuation.entries()) {
        const tokens = i === 0 ? context : continuation.subarray(i - 1, i);
        const logits = await sequence.run(tokens, {
          signal,
          sparseFrom: i === 0 ? this.#sparseFrom(context) : undefined,
        });
        try {
          const values = await backend.read(logits);
          if (firstNonFiniteOf(values) >= 0) throw await explainNonFinite(model, tokens);
          const { logSumExp } = withLogSumExp(values, logits.cols, config.vocabSize);
          result.logLikelihood += values[target] - logSumExp[0];
          result.isGreedy &&= values
            .subarray(0, config.vocabSize)
            .every((value, id) => value < values[target] || (value === values[target] && id >= target));
        } finally {
          backend.release(logits);
        }
      }
      results.push(result);
      this.work.tokensRun += length;
      this.work.tokensAlone += length;
      stage.advance(1);
    }
    return results;
  }

  #sparseFrom(context: Uint32Array): number {
    return sparseFromPosition(this.#prefill, context.length);
  }

  async answers(requests: readonly PromptRequest[], { signal, onProgress }: JobOptions = {}): Promise<string[]> {
    const { model, thresholds, attention, kv } = this.variant;
    const { seed = 1234 } = this.options;
    const end = model.config.eosTokenIds.flatMap((id) => this.tokenizer.tokenOf(id) ?? []);
    const stage = new Stage("answer", requests.length, "answers", onProgress);
    const answers: string[] = [];
    for (const { prompt, settings } of requests) {
      const most = settings.max_gen_toks ?? settings.max_new_tokens ?? settings.max_tokens ?? defaultAnswerTokens;
      const maxTokens = Math.min(most, this.#encoder.maxTokens - 1);
      const tokens = this.#encoder.encode(prompt);
      const given = tokens.subarray(Math.max(0, tokens.length - (this.#encoder.maxTokens - maxTokens)));
      const stops = [...settings.until, ...end].filter((stop) => stop !== "");
      const drawn = settings.do_sample === true && settings.temperature !== 0;
      const summary = await collect(
        generate(model, given, {
          maxTokens,
          stopStrings: stops,
          tokenizer: this.tokenizer,
          thresholds: thresholds ?? "exact",
          prefill: this.#prefill,
          attention,
          kv,
          temperature: drawn ? (settings.temperature ?? 1) : 0,
          ...(drawn && { topP: settings.top_p, topK: settings.top_k }),
          seed,
          signal,
        }),
      );
      this.work.tokensRun += given.length + summary.tokenIds.length - 1;
      this.work.tokensAlone += given.length + summary.tokenIds.length - 1;
      const text = this.tokenizer.decode(summary.tokenIds, { skipSpecialTokens: true });
      answers.push(stops.reduce((left, stop) => left.split(stop, 1)[0], text));
      stage.advance(1);
    }
    return answers;
  }
}
