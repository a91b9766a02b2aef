import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import { type Activation, kvBytesRead } from "../kernels/index.js";
import { keptValue } from "../kernels/internal.js";
import { type ForwardOptions, type GateCounts, type Model, type RunsAs, runsAs } from "../model/index.js";
import { checkGenerates } from "../model/internal.js";
import { type PrefillPolicy, SequenceMemory, sparseFromPosition } from "../runtime/index.js";
import { ExitStates } from "../runtime/internal.js";
import type { TokenizedText } from "../text/index.js";
import { type Divergence, DivergenceSum } from "./divergence.js";
import { logitRows, rowsPerChunk } from "./logits.js";
import { negativeLogLikelihood } from "./perplexity.js";
import { RealisedSparsity } from "./realisedSparsity.js";
import { checkComparable, thresholdsOf, type Variant } from "./variant.js";
import { type Convention, type EvaluationWindow, evaluationWindows, textPerplexity } from "./windows.js";

/** Which windows are measured, and which of their tokens run sparse. */
export interface QualityOptions extends JobOptions {
  /** How the text is cut; default "windows". */
  convention?: Convention;
  /** Tokens of a window. Default 512. */
  window?: number;
  /** Of "rolling": tokens from the begin of a window to that of the next. Default half a window. */
  stride?: number;
  /** The begin-of-text token; the convention says where it goes. Default: none. */
  begin?: number;
  /** Windows at most, from the start of the text. Default 40 for "windows", else all. */
  maxWindows?: number;
  /**
   * Which tokens of a window see the thresholds, as if it were a prompt. Default `{ denseFirst: 0 }`: all, the strictest.
   */
  prefill?: PrefillPolicy;
  /**
   * Tokens that a variant with a KV policy runs at once. Default 1: before each token the policy has thrown away what it
   * would have in decoding.
   */
  passTokens?: number;
  /**
   * First tokens of a window that count as its prompt: none of them is scored, and KV policies that look at a prompt once do
   * so behind them. Default 0, or half of the window where a variant has such a policy.
   */
  promptTokens?: number;
}

/** Perplexity of one variant and its distance from the first. */
export interface Quality {
  name: string;
  perplexity: number;
  /** Mean negative log likelihood of the predicted tokens, in nats. */
  nll: number;
  /** Where the text itself is known: per word, per byte, and in bits. */
  wordPerplexity?: number;
  bytePerplexity?: number;
  bitsPerByte?: number;
  /** Predicted tokens. */
  tokens: number;
  /** Absent for "windows" without a begin-of-text token. */
  convention?: Convention;
  stride?: number;
  bos?: true;
  /** First tokens of each window that were not scored. */
  promptTokens?: number;
  window: number;
  windows: number;
  textSha256: string;
  /** Share of the blocks' weights that met a zeroed input, counted over the first window. */
  activationSparsity: number;
  /** What the model ran as. */
  runsAs: RunsAs[];
  /** Share of the keys and values that attention read, of those it reads without a pattern or a KV policy; as counted. */
  attendedShare: number;
  /** Layers behind which tokens left, on average; only with early exit. All tokens of a window may leave. */
  meanExitLayer?: number;
  /** Share of the weights behind gates that tokens met; only of a model with gates in front of layers. */
  layerShare?: number;
  /** Against the first variant; undefined for itself. */
  divergence?: Divergence;
}

/**
 * Perplexity of every variant, and how far each lies from the first, over the same windows in one run.
 *
 * Convention, where none is asked for: windows of `window` tokens from the start of the text, not overlapping, no BOS; the
 * mean negative log likelihood over the window − 1 tokens that each window predicts; log-softmax in f64 of f32 logits. One
 * residual stream per variant and some rows of logits of two variants are held at a time.
 * @throws UsageError for a text shorter than one window, a window beyond a model's context or different vocabularies
 */
export async function evaluateQuality(
  variants: readonly Variant[],
  text: TokenizedText,
  options: QualityOptions = {},
): Promise<Quality[]> {
  const { convention = "windows", window = 512, begin, prefill = { denseFirst: 0 }, signal, onProgress } = options;
  const { stride = Math.ceil(window / 2), maxWindows = convention === "windows" ? 40 : Number.MAX_SAFE_INTEGER } =
    options;
  for (const { model } of variants) checkGenerates(model);
  checkComparable(variants);
  if (!(Number.isSafeInteger(maxWindows) && maxWindows >= 1))
    throw new UsageError(`${maxWindows} windows; take at least 1`);
  for (const { name, model } of variants) {
    const { maxPositions } = model.config;
    if (window <= maxPositions) continue;
    throw new UsageError(
      `a window of ${window} tokens, and ${name} was made for ${maxPositions}: take a window (\`window\`) of at most ${maxPositions}`,
    );
  }
  const windows = evaluationWindows(text.tokens, { convention, window, stride, begin, maxWindows });
  if (windows.count === 0) {
    throw new UsageError(
      `${text.name ?? "the text"} has ${text.tokens.length} tokens, and a window ${window}: give a longer text or a smaller window (\`window\`)`,
    );
  }

  const { promptTokens = variants.some(({ kv }) => kv?.eviction?.prompt) ? window >> 1 : 0 } = options;
  if (!Number.isSafeInteger(promptTokens) || promptTokens < 0 || promptTokens >= window) {
    throw new UsageError(`a prompt of ${promptTokens} tokens in windows of ${window}`);
  }
  let tokens = 0;
  using memories = new Memories(window, options.passTokens ?? 1);
  const stage = new Stage("evaluate", windows.count * window * variants.length, "tokens", onProgress);
  const sparseFrom = sparseFromPosition(prefill, window);
  const realised = variants.map((variant) => {
    const thresholds = thresholdsOf(variant);
    return thresholds === "dense" ? undefined : new RealisedSparsity(variant.model, thresholds, sparseFrom);
  });
  using exitStates = new ExitsOfVariants(variants, window);
  const nllSums = new Float64Array(variants.length);
  const divergences = variants.map(() => new DivergenceSum());
  const kvBytes = new Float64Array(variants.length);
  const kvBytesOfAll = new Float64Array(variants.length);
  const gated = variants.map((): GateCounts => ({ offered: 0, met: 0 }));

  for (let w = 0; w < windows.count; w++) {
    const part = behindPrompt(windows.at(w), promptTokens);
    tokens += part.targets.length;
    const streams: Activation[] = [];
    try {
      for (const [v, variant] of variants.entries()) {
        await breathe(signal);
        const watching = w === 0 ? realised[v] : undefined;
        const { backend } = variant.model;
        const memory = memories.of(variant);
        backend.takeCounters();
        variant.model.takeGateCounts?.();
        const onPass = (start: number) => {
          if (watching !== undefined) watching.firstRow = sparseFrom - start;
        };
        const exits = exitStates.of(variant);
        const forward = { sparseFrom, tap: watching?.tap, thresholds: thresholdsOf(variant) };
        streams.push(
          await residualStream(variant.model, part.inputs, { memory, forward, promptTokens, exits }, onPass, signal),
        );
        gated[v] = gateCountsWith(gated[v], variant.model.takeGateCounts?.());
        kvBytes[v] += backend.takeCounters().kvBytesRead;
        kvBytesOfAll[v] += bytesOfAll(memory, part.inputs.length);
        stage.advance(window, variant.name);
      }
      await compareLogits(variants, streams, part, nllSums, divergences);
    } finally {
      for (const [v, stream] of streams.entries()) variants[v].model.backend.release(stream);
    }
  }

  const covered = promptTokens > 0 ? undefined : text.beginning?.(windows.coveredTokens);
  const cut = {
    ...((convention !== "windows" || begin !== undefined) && { convention }),
    ...(convention === "rolling" && { stride }),
    ...(begin !== undefined && { bos: true as const }),
    ...(promptTokens > 0 && { promptTokens }),
  };
  return variants.map((variant, v) => {
    const { name, model } = variant;
    const nll = nllSums[v] / tokens;
    const activationSparsity = realised[v]?.sparsity ?? 0;
    const divergence = v === 0 ? undefined : divergences[v].result();
    return {
      name,
      perplexity: Math.exp(nll),
      nll,
      ...(covered !== undefined && textPerplexity(nllSums[v], covered)),
      tokens,
      window,
      windows: windows.count,
      ...cut,
      textSha256: text.sha256,
      activationSparsity,
      runsAs: runsAs(model.choices),
      attendedShare: kvBytes[v] / kvBytesOfAll[v],
      ...(variant.exits && { meanExitLayer: exitStates.of(variant)!.meanExitLayer }),
      ...(model.takeGateCounts && { layerShare: gated[v].met / gated[v].offered }),
      divergence,
    };
  });
}

const gateCountsWith = (sum: GateCounts, more: GateCounts = { offered: 0, met: 0 }): GateCounts => ({
  offered: sum.offered + more.offered,
  met: sum.met + more.met,
});

interface StreamOptions {
  memory: SequenceMemory;
  forward: ForwardOptions;
  promptTokens: number;
  exits: ExitStates | undefined;
}

/**
 * The residual stream f32 [tokens, hiddenSize] after the last block; the caller releases it.
 * @param onPass is told of every pass before it, by its first token
 */
async function residualStream(
  model: Model,
  tokens: Uint32Array,
  { memory, forward, promptTokens, exits }: StreamOptions,
  onPass: (start: number) => void,
  signal: AbortSignal | undefined,
): Promise<Activation> {
  const stream = model.embed(tokens);
  try {
    memory.rewind(0);
    for (let run = 0; run < tokens.length; ) {
      const left = Math.max(0, promptTokens - run);
      const rows = left > 0 ? memory.passRows(left) : Math.min(memory.mostRows, tokens.length - run);
      const phase = promptTokens === 0 ? undefined : left > 0 ? "prompt" : "decode";
      const { start, options } = memory.next(run, rows, forward, phase);
      onPass(run);
      const rowsOfPass = stream.rowRange(run, rows);
      // As in generation, prompts run through all layers.
      const leaving = left > 0 ? undefined : exits;
      leaving?.begin(rows);
      for (let layer = 0; layer < model.config.layers; layer++) {
        // Passes of single tokens are many and short.
        if (rows > 1 || layer === 0) await breathe(signal);
        await model.block(layer, rowsOfPass, memory.cache, start, options);
        await leaving?.ran(layer + 1, rowsOfPass);
      }
      await memory.ran(run, rows, Math.max(0, left - rows));
      run += rows;
    }
    return stream;
  } catch (error) {
    model.backend.release(stream);
    throw error;
  }
}

/** Without the predictions of tokens within the prompt. */
function behindPrompt({ inputs, targets, firstRow }: EvaluationWindow, promptTokens: number): EvaluationWindow {
  const within = Math.min(targets.length, Math.max(0, promptTokens - 1 - firstRow));
  return { inputs, targets: targets.subarray(within), firstRow: firstRow + within };
}

/** Bytes of keys and values that attention reads of a window, run in the same passes, when nothing is hidden or forgotten. */
function bytesOfAll({ model, cache, mostRows }: SequenceMemory, window: number): number {
  const { blocks, slidingWindows } = model.config;
  let bytes = 0;
  for (let start = 0; start < window; start += mostRows) {
    const rows = Math.min(mostRows, window - start);
    for (const [layer, kept] of cache.spec.layers.entries()) {
      const own = { kind: "causal", window: slidingWindows[layer] } as const;
      const { queryHeads } = blocks[layer];
      const bytesOf = (from: number, to: number) => 4 * (to - from) * (kept.key + keptValue(kept));
      bytes += kvBytesRead(own, { rows, start, queryHeads }, kept, bytesOf);
    }
  }
  return bytes;
}

/** Adds one window's predictions to the sums, some rows of logits at a time. */
async function compareLogits(
  variants: readonly Variant[],
  streams: readonly Activation[],
  { inputs, targets: all, firstRow }: EvaluationWindow,
  nllSums: Float64Array,
  divergences: readonly DivergenceSum[],
): Promise<void> {
  const step = rowsPerChunk(variants[0].model.config.vocabSize);
  const logits = (v: number, start: number, rows: number) =>
    logitRows(variants[v].model, inputs, streams[v], start, rows);
  for (let done = 0; done < all.length; done += step) {
    const targets = all.subarray(done, done + step);
    const [start, rows] = [firstRow + done, targets.length];
    const baseline = await logits(0, start, rows);
    nllSums[0] += negativeLogLikelihood(baseline, targets);
    for (let v = 1; v < variants.length; v++) {
      const compared = await logits(v, start, rows);
      nllSums[v] += negativeLogLikelihood(compared, targets);
      divergences[v].add(baseline, compared);
    }
  }
}

/** What each variant remembers of a window; those that share a model and see alike share it, and begin anew in each. */
class Memories implements Disposable {
  readonly #memories = new Map<Model, Map<string, SequenceMemory>>();

  constructor(
    readonly capacity: number,
    readonly passTokens: number,
  ) {}

  of({ model, attention, kv }: Variant): SequenceMemory {
    const key = JSON.stringify([attention?.text, kv?.text]);
    const ofModel = this.#memories.get(model) ?? new Map<string, SequenceMemory>();
    this.#memories.set(model, ofModel);
    let memory = ofModel.get(key);
    if (memory === undefined) {
      memory = new SequenceMemory(model, this.capacity, { attention, kv, passTokens: this.passTokens });
      ofModel.set(key, memory);
    }
    return memory;
  }

  [Symbol.dispose](): void {
    for (const ofModel of this.#memories.values()) {
      for (const memory of ofModel.values()) memory[Symbol.dispose]();
    }
  }
}

/** What leaves early of each variant where something does. */
class ExitsOfVariants implements Disposable {
  readonly #states = new Map<Variant, ExitStates>();

  constructor(variants: readonly Variant[], window: number) {
    try {
      for (const variant of variants) {
        const { model, exits } = variant;
        if (exits !== undefined) this.#states.set(variant, new ExitStates(model, exits, window));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  of(variant: Variant): ExitStates | undefined {
    return this.#states.get(variant);
  }

  [Symbol.dispose](): void {
    for (const states of this.#states.values()) states[Symbol.dispose]();
  }
}
