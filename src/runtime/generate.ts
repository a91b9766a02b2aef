import { breathe, type JobOptions, UsageError } from "../core/index.js";
import { checkOptions, type OptionRules, optionRules } from "../core/internal.js";
import { checkSound, type Model, type PassThresholds } from "../model/index.js";
import type { Tokenizer } from "../text/index.js";
import type { Cloud, Route, Routing } from "./cloud/index.js";
import type { ExitCounts } from "./exits/earlyExit.js";
import type { Exits } from "./exits/index.js";
import type { KvChoice } from "./kv/index.js";
import { type PrefillPolicy, sparseFromPosition } from "./prefillPolicy.js";
import { promptIds } from "./prompt.js";
import { Sampler, type SamplingOptions } from "./samplers.js";
import { Sequence } from "./sequence.js";
import type { Attention } from "./sight/index.js";
import type { Draft, Speculation } from "./speculate/index.js";
import { TextStream } from "./textStream.js";
import { GenerationClock, type GenerationTimings } from "./timings.js";
import { tokenSource } from "./tokenSource.js";

/** How tokens are chosen and when generation ends. */
export interface GenerateOptions extends SamplingOptions, JobOptions {
  /** The most tokens to generate, at least 1; default 256. */
  maxTokens?: number;
  /** Generation ends with any of these tokens; default: the model's end-of-text tokens. */
  stopIds?: readonly number[];
  /** Generation ends before any of these strings; needs `tokenizer`. */
  stopStrings?: readonly string[];
  /** Makes `text` of the steps. */
  tokenizer?: Tokenizer;
  /**
   * Whether `text` goes on where the prompt's ends, so that both may be joined; default true. False where it is a text of its
   * own, as the answer in a chat: tokenizers of the SentencePiece kind then leave out its first space.
   */
  continuesPrompt?: boolean;
  /** Whether steps carry `logprob`; reads all logits even when greedy. */
  logprobs?: boolean;
  /** Prompt tokens run at once; default as in `RunOptions`. */
  prefillChunk?: number;
  /**
   * Whether a greedy generation runs the next token before the last is read, where the backend can; default true. False where
   * generations take turns and each is timed, or counted, by itself.
   */
  ahead?: boolean;
  /** Proposes tokens that the model then verifies several at a time; what comes out is distributed as without. */
  draft?: Draft;
  /**
   * Tokens that the draft proposes at once, 1 to 16. Default: as many as the measured times and the share accepted make worth
   * it, or 4 where a seed is to give the same text.
   */
  draftTokens?: number;
  /**
   * A server that verifies what this model proposes, as `connectCloud` gives: the text follows the server's law, and ends with
   * its stop tokens. `draftTokens` counts as with a draft.
   */
  cloud?: Cloud;
  /** With a cloud: it is asked only for some tokens, or texts, and the others are this model's own; as `parseRoute` gives. */
  route?: Route;
  /** What a new sequence runs with; default the model's own, and "dense" is without any. One that is given has its own. */
  thresholds?: PassThresholds;
  /** Only where there are thresholds; default "dense". */
  prefill?: PrefillPolicy;
  /** Continued where it agrees with the prompt, and left with prompt and answer in it. Default: a new one, disposed of. */
  sequence?: Sequence;
  /** What a new sequence sees; one that is given has its own. */
  attention?: Attention;
  /** What a new sequence holds; one that is given has its own. */
  kv?: KvChoice;
  /** Behind which layers the tokens of a new sequence may leave; one that is given has its own. */
  exits?: Exits;
}

/**
 * Why generation ended: a stop token, a stop string, `maxTokens` reached, or no room left in the sequence or in the
 * positions the model was made for.
 */
export type FinishReason = "stopToken" | "stopString" | "maxTokens" | "capacity";

/** All of a generation, once it has ended. */
export interface GenerationSummary {
  reason: FinishReason;
  /** All that were generated, a stop token included. */
  tokenIds: number[];
  /** All text, stop string left out; "" without a tokenizer. */
  text: string;
  seed: number;
  timings: GenerationTimings;
  /** Only with a draft. */
  speculation?: Speculation;
  /** Only where tokens or texts are routed to a cloud. */
  routing?: Readonly<Routing>;
  /** Only with early exit; of the whole sequence. */
  exits?: Readonly<ExitCounts>;
}

/** One generated token. */
export interface GenerationStep {
  id: number;
  /** Text that this token made certain; often "" inside a character or in what may become a stop string. */
  text: string;
  /** ln of the probability the model gave the token, before any sampling option. Only with `logprobs`. */
  logprob?: number;
  /** Only in the last step. */
  finish?: GenerationSummary;
}

const { any, boolean, each, having, integer, text } = optionRules;

const generateRules: OptionRules<GenerateOptions> = {
  maxTokens: integer(1),
  stopIds: each(integer(0), "an array of token ids"),
  stopStrings: each(text, "an array of texts that are not empty"),
  tokenizer: having("decode", "a tokenizer, as loadTokenizer gives"),
  continuesPrompt: boolean,
  logprobs: boolean,
  prefillChunk: integer(1),
  ahead: boolean,
  thresholds: any,
  draft: having("open", "a Draft, as modelDraft gives"),
  draftTokens: integer(1),
  cloud: having("open", "a Cloud, as connectCloud gives"),
  route: having("certainty", "a rule of routing, as parseRoute gives"),
  prefill: any,
  sequence: having("reuse", "a Sequence"),
  attention: having("see", "an attention pattern, as parseAttention gives"),
  kv: any,
  exits: having("open", "a rule of early exit, as parseExits gives"),
  signal: optionRules.signal,
  onProgress: optionRules.function,
  // The sampler checks its own, and reports all at once.
  temperature: any,
  topK: any,
  topP: any,
  minP: any,
  repetitionPenalty: any,
  seed: integer(0),
};

/**
 * Generates tokens after those of a prompt, one step at a time; the last step has `finish`. Between steps other work of the event
 * loop runs, and any number of generations may be under way on one model.
 * @throws UsageError for options that do not fit and for a sequence that another generation uses, ProblemsError for sampling options out of range, and the signal's reason
 * when it is aborted.
 */
export async function* generate(
  model: Model,
  promptTokens: ArrayLike<number>,
  options: GenerateOptions = {},
): AsyncGenerator<GenerationStep, void, undefined> {
  checkOptions("generate", options, generateRules);
  const { maxTokens = 256, stopStrings = [], signal, cloud } = options;
  const { stopIds = cloud?.stopIds ?? model.config.eosTokenIds } = options;
  const prompt = promptIds(model, promptTokens, options.tokenizer);
  if (stopStrings.length > 0 && options.tokenizer === undefined) throw new UsageError("stopStrings need a tokenizer");
  if (options.sequence !== undefined && options.sequence.model !== model) {
    throw new UsageError("the sequence belongs to another model");
  }
  checkSound(model);
  const sampler = new Sampler(options);
  const stream =
    options.tokenizer &&
    new TextStream(options.tokenizer, stopStrings, options.continuesPrompt === false ? [] : prompt);
  const sparseFrom = sparseFromPosition(options.prefill ?? "dense", prompt.length);
  signal?.throwIfAborted();

  const sequence = options.sequence ?? newSequence(model, prompt.length, maxTokens, options);
  using _held = sequence.hold();
  const source = await tokenSource(sequence, sampler, { ...options, stopIds });
  try {
    const rest = sequence.reuse(prompt);
    const clock = new GenerationClock(rest.length, source.worksAhead);
    const prefill = { chunk: options.prefillChunk, sparseFrom, signal, onProgress: options.onProgress };
    // Whether there is room, and a wish, for a token after the one that is asked for.
    const more = () => tokenIds.length + 1 < maxTokens && sequence.length < sequence.capacity;
    const tokenIds: number[] = [];
    let { id, logprob } = await clock.prefill(async () => source.first(await sequence.run(rest, prefill), more));

    let text = "";
    for (;;) {
      tokenIds.push(id);
      let piece = stream?.push(id) ?? "";
      let reason: FinishReason | undefined;
      if (stopIds.includes(id)) reason = "stopToken";
      else if (stream?.stopped) reason = "stopString";
      else if (tokenIds.length === maxTokens) reason = "maxTokens";
      else if (prompt.length + tokenIds.length > sequence.capacity) reason = "capacity";
      if (reason !== undefined) piece += stream?.flush() ?? "";
      text += piece;

      const step: GenerationStep = { id, text: piece, ...(logprob !== undefined && { logprob }) };
      if (reason !== undefined) {
        const { speculation, routing } = source;
        const finish = {
          ...{ reason, tokenIds, text, seed: sampler.seed, timings: clock.timings() },
          ...(speculation && { speculation }),
          ...(routing && { routing: { ...routing } }),
          ...(sequence.exitCounts && { exits: { ...sequence.exitCounts } }),
        };
        yield { ...step, finish };
        return;
      }
      yield step;
      await breathe(signal);
      const last = id;
      ({ id, logprob } = await clock.step(() => source.next(last, more)));
    }
  } finally {
    source[Symbol.dispose]();
    if (options.sequence === undefined) sequence[Symbol.dispose]();
  }
}

function newSequence(
  model: Model,
  promptLength: number,
  maxTokens: number,
  {
    thresholds,
    attention,
    kv,
    exits,
    cloud,
  }: Pick<GenerateOptions, "thresholds" | "attention" | "kv" | "exits" | "cloud">,
): Sequence {
  // Renumbered tokens never come to the end of the positions.
  const most = kv?.eviction?.renumbers ? Number.POSITIVE_INFINITY : model.config.maxPositions;
  if (promptLength > most) {
    throw new UsageError(`a prompt of ${promptLength} tokens; the model was made for ${most} positions`);
  }
  const { context = most } = cloud ?? {};
  if (promptLength > context) {
    throw new UsageError(`a prompt of ${promptLength} tokens; the server takes texts of ${context}`);
  }
  return new Sequence(model, Math.min(promptLength + maxTokens - 1, most, context), {
    thresholds,
    attention,
    kv,
    exits,
  });
}
