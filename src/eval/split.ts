import { breathe, type JobOptions, median, Stage, UsageError } from "../core/index.js";
import { checkSound } from "../model/index.js";
import { mostPassRows } from "../model/internal.js";
import { SequenceMemory } from "../runtime/index.js";
import { thresholdsOf, type Variant } from "./variant.js";

/** Where the time of a token goes, in milliseconds. */
export interface TimeSplit {
  /**
   * Waiting for weights that are read from files, and packing those of a prompt: 0 where they are in memory. What is read while
   * something else is computed costs nothing here.
   */
  ioMs: number;
  /** Norm, projections, rotation, attention and its output, of all blocks. */
  attentionMs: number;
  /** The rest of all blocks: the MLP or the experts. */
  ffnMs: number;
  /** The embedding before the blocks, the final norm and the logits behind them. */
  headMs: number;
  /** From the logits to a token: reading them, and the greedy choice. */
  samplingMs: number;
}

/** What the parts of a pass took, by token; medians over the rounds. */
export interface SplitTimes {
  name: string;
  prefillTokens: number;
  contextTokens: number;
  decodeTokens: number;
  repeats: number;
  prefill: TimeSplit;
  decode: TimeSplit;
  /** Of a model that is larger than memory: what a decoded token reads from its files, on average. Counted. */
  decodeReads?: { bytes: number; reads: number };
}

/** Which tokens are timed part by part, and how often. */
export interface SplitOptions extends JobOptions {
  /** Default 128. */
  prefillTokens?: number;
  /** Positions in the cache when decoding begins; default `prefillTokens`. */
  contextTokens?: number;
  /** Default 32. */
  decodeTokens?: number;
  /** Default 3. */
  repeats?: number;
}

type Part = "ioMs" | "attentionMs" | "ffnMs" | "headMs" | "samplingMs";
type Phase = "prompt" | "decode";

const nothing = (): Record<Part, number> => ({ ioMs: 0, attentionMs: 0, ffnMs: 0, headMs: 0, samplingMs: 0 });

function byToken(spent: Readonly<Record<Part, number>>, tokens: number): TimeSplit {
  const { ioMs, attentionMs, ffnMs, headMs, samplingMs } = spent;
  const of = (ms: number) => ms / tokens;
  return {
    ioMs: of(ioMs),
    attentionMs: of(attentionMs),
    ffnMs: of(ffnMs),
    headMs: of(headMs),
    samplingMs: of(samplingMs),
  };
}

/**
 * Splits the time of prefill and of decoding by what it is spent on. Everything enqueued is waited for between the parts, so
 * that on a GPU their sum is more than a pass takes as a whole. One warm-up round.
 * @param tokens at least contextTokens + decodeTokens
 * @throws UsageError for a text that is too short
 */
export async function measureSplit(
  variant: Variant,
  tokens: Uint32Array,
  options: SplitOptions = {},
): Promise<SplitTimes> {
  const { prefillTokens = 128, decodeTokens = 32, repeats = 3, signal, onProgress } = options;
  const { contextTokens = prefillTokens } = options;
  const needed = contextTokens + decodeTokens;
  if (!(prefillTokens >= 1 && decodeTokens >= 1 && repeats >= 1 && contextTokens >= prefillTokens)) {
    throw new UsageError(`cannot split ${prefillTokens} tokens of prefill and ${decodeTokens} after ${contextTokens}`);
  }
  if (tokens.length < needed) throw new UsageError(`a text of ${tokens.length} tokens; splitting needs ${needed}`);
  checkSound(variant.model);
  const stage = new Stage("split", repeats + 1, "runs", onProgress);
  let reads = { bytes: 0, reads: 0 };
  const rounds: { prefill: TimeSplit; decode: TimeSplit }[] = [];
  for (let round = 0; round <= repeats; round++) {
    await breathe(signal);
    using run = new SplitRun(variant, needed);
    const prefill = await run.prompt(tokens.subarray(0, prefillTokens), signal);
    if (contextTokens > prefillTokens) {
      await run.prompt(tokens.subarray(prefillTokens, contextTokens), signal);
    }
    const decode = await run.decode(tokens.subarray(contextTokens, needed), signal);
    reads = run.reads;
    if (round > 0) rounds.push({ prefill, decode });
    stage.advance(1);
  }
  const middle = (phase: "prefill" | "decode") => {
    const of = (part: keyof TimeSplit) => median(rounds.map((round) => round[phase][part]));
    return {
      ioMs: of("ioMs"),
      attentionMs: of("attentionMs"),
      ffnMs: of("ffnMs"),
      headMs: of("headMs"),
      samplingMs: of("samplingMs"),
    };
  };
  const { name } = variant;
  return {
    ...{ name, prefillTokens, contextTokens, decodeTokens, repeats },
    prefill: middle("prefill"),
    decode: middle("decode"),
    ...(variant.model.offload && {
      decodeReads: { bytes: reads.bytes / decodeTokens, reads: reads.reads / decodeTokens },
    }),
  };
}

/** One text that is run part by part. */
class SplitRun implements Disposable {
  readonly #memory: SequenceMemory;
  /** Tokens that were run. */
  #ran = 0;
  /** What decoding read from files. */
  readonly reads = { bytes: 0, reads: 0 };

  constructor(
    readonly variant: Variant,
    capacity: number,
  ) {
    this.#memory = new SequenceMemory(variant.model, capacity, variant);
  }

  /** Runs tokens that follow those before in as few passes as may be; time by token. */
  async prompt(tokens: Uint32Array, signal: AbortSignal | undefined): Promise<TimeSplit> {
    const spent = nothing();
    const most = mostPassRows(this.variant.model.config.spec, 128);
    for (let done = 0; done < tokens.length; ) {
      await breathe(signal);
      const rows = Math.min(most, this.#memory.passRows(tokens.length - done));
      await this.#pass(tokens.subarray(done, done + rows), "prompt", tokens.length - done - rows, spent);
      done += rows;
    }
    return byToken(spent, tokens.length);
  }

  /** Runs them one by one. */
  async decode(tokens: Uint32Array, signal: AbortSignal | undefined): Promise<TimeSplit> {
    const spent = nothing();
    for (let t = 0; t < tokens.length; t++) {
      await breathe(signal);
      await this.#pass(tokens.subarray(t, t + 1), "decode", 0, spent);
    }
    return byToken(spent, tokens.length);
  }

  async #pass(tokens: Uint32Array, phase: Phase, left: number, spent: Record<Part, number>): Promise<void> {
    const { model } = this.variant;
    const { backend } = model;
    model.offload?.takeCounters();
    let sinceMs = performance.now();
    const lap = async (part: Part) => {
      await backend.flush();
      const nowMs = performance.now();
      const counters = model.offload?.takeCounters();
      const ioMs = counters?.waitMs ?? 0;
      if (phase === "decode") {
        this.reads.bytes += counters?.bytesRead ?? 0;
        this.reads.reads += counters?.reads ?? 0;
      }
      spent.ioMs += ioMs;
      spent[part] += nowMs - sinceMs - ioMs;
      sinceMs = nowMs;
    };
    const run = this.#ran;
    // A prefill is dense, as where speeds are measured.
    const thresholds = phase === "prompt" ? "dense" : thresholdsOf(this.variant);
    const { start, options } = this.#memory.next(run, tokens.length, { thresholds }, phase);
    const x = model.embed(tokens, run);
    try {
      await lap("headMs");
      const onAttended = () => lap("attentionMs");
      for (let layer = 0; layer < model.config.layers; layer++) {
        await model.block(layer, x, this.#memory.cache, start, { ...options, onAttended });
        await lap("ffnMs");
      }
      await this.#memory.ran(run, tokens.length, left);
      this.#ran += tokens.length;
      if (left > 0) return;
      sinceMs = performance.now();
      const logits = model.head(x.rowRange(tokens.length - 1, 1));
      try {
        await lap("headMs");
        await backend.topK(logits, 1);
        await lap("samplingMs");
      } finally {
        backend.release(logits);
      }
    } finally {
      backend.release(x);
    }
  }

  [Symbol.dispose](): void {
    this.#memory[Symbol.dispose]();
  }
}
