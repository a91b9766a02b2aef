import { breathe, type JobOptions, Stage, UsageError } from "../core/index.js";
import type { Activation, KvCache } from "../kernels/index.js";
import type { ForwardOptions, Model } from "../model/index.js";
import { type PrefillPolicy, sparseFromPosition } from "../runtime/index.js";
import type { TokenizedText } from "../text/index.js";
import { type Divergence, DivergenceSum } from "./divergence.js";
import { logitRows, rowsPerChunk } from "./logits.js";
import { negativeLogLikelihood } from "./perplexity.js";
import { RealisedSparsity } from "./realisedSparsity.js";
import { checkComparable, type Variant, withThresholds } from "./variant.js";

export interface QualityOptions extends JobOptions {
  /** Tokens of a window. Default 512. */
  window?: number;
  /** Windows at most, from the start of the text. Default 40. */
  maxWindows?: number;
  /**
   * Which tokens of a window see the thresholds, as if it were a prompt. Default `{ denseFirst: 0 }`: all, the strictest.
   */
  prefill?: PrefillPolicy;
}

export interface Quality {
  name: string;
  perplexity: number;
  /** Mean negative log likelihood of the predicted tokens, in nats. */
  nll: number;
  /** Predicted tokens: window − 1 of every window. */
  tokens: number;
  window: number;
  windows: number;
  textSha256: string;
  /** Share of the blocks' weights that met a zeroed input, counted over the first window; 0 for a dense variant. */
  activationSparsity: number;
  /** Against the first variant; undefined for itself. */
  divergence?: Divergence;
}

/**
 * Perplexity of every variant, and how far each lies from the first, over the same windows in one run.
 *
 * Convention: windows of `window` tokens from the start of the text, not overlapping, no BOS; the mean negative log
 * likelihood over the window − 1 tokens that each window predicts; log-softmax in f64 of f32 logits. One residual stream
 * per variant and some rows of logits of two variants are held at a time.
 * @throws UsageError for a text shorter than one window, a window beyond a model's context or different vocabularies
 */
export async function evaluateQuality(
  variants: readonly Variant[],
  text: TokenizedText,
  options: QualityOptions = {},
): Promise<Quality[]> {
  const { window = 512, maxWindows = 40, prefill = { denseFirst: 0 }, signal, onProgress } = options;
  checkComparable(variants);
  if (!(Number.isSafeInteger(window) && window >= 2))
    throw new UsageError(`a window of ${window} tokens predicts nothing; take at least 2`);
  const windows = Math.min(maxWindows, Math.floor(text.tokens.length / window));
  if (!(Number.isSafeInteger(windows) && windows >= 1)) {
    throw new UsageError(`${maxWindows} windows of ${window} tokens from a text of ${text.tokens.length}; take fewer`);
  }

  using caches = new CachePerModel(window);
  const stage = new Stage("evaluate", windows * window * variants.length, "tokens", onProgress);
  const sparseFrom = sparseFromPosition(prefill, window);
  const realised = variants.map(
    ({ model, thresholds }) => thresholds && new RealisedSparsity(model, thresholds, sparseFrom),
  );
  const nllSums = new Float64Array(variants.length);
  const divergences = variants.map(() => new DivergenceSum());

  for (let w = 0; w < windows; w++) {
    const tokens = text.tokens.subarray(w * window, (w + 1) * window);
    const streams: Activation[] = [];
    try {
      for (const [v, variant] of variants.entries()) {
        await breathe(signal);
        const tap = w === 0 ? realised[v]?.tap : undefined;
        const cache = caches.of(variant.model);
        const forward = { sparseFrom, tap };
        streams.push(
          await withThresholds(variant, () => residualStream(variant.model, tokens, cache, forward, signal)),
        );
        stage.advance(window, variant.name);
      }
      await compareLogits(variants, streams, tokens, nllSums, divergences);
    } finally {
      for (const [v, stream] of streams.entries()) variants[v].model.backend.release(stream);
    }
  }

  const tokens = windows * (window - 1);
  return variants.map(({ name }, v) => {
    const nll = nllSums[v] / tokens;
    const activationSparsity = realised[v]?.sparsity ?? 0;
    const quality = { name, perplexity: Math.exp(nll), nll, tokens, window, windows, textSha256: text.sha256 };
    const divergence = v === 0 ? undefined : divergences[v].result();
    return { ...quality, activationSparsity, divergence };
  });
}

/** The residual stream f32 [tokens, hiddenSize] after the last block; the caller releases it. */
async function residualStream(
  model: Model,
  tokens: Uint32Array,
  cache: KvCache,
  forward: ForwardOptions,
  signal: AbortSignal | undefined,
): Promise<Activation> {
  const stream = model.embed(tokens);
  try {
    for (let layer = 0; layer < model.config.layers; layer++) {
      await breathe(signal);
      await model.block(layer, stream, cache, 0, forward);
    }
    return stream;
  } catch (error) {
    model.backend.release(stream);
    throw error;
  }
}

/** Adds one window's predictions to the sums, some rows of logits at a time. */
async function compareLogits(
  variants: readonly Variant[],
  streams: readonly Activation[],
  tokens: Uint32Array,
  nllSums: Float64Array,
  divergences: readonly DivergenceSum[],
): Promise<void> {
  const predicted = tokens.length - 1;
  const step = rowsPerChunk(variants[0].model.config.vocabSize);
  const logits = (v: number, start: number, rows: number) =>
    withThresholds(variants[v], () => logitRows(variants[v].model, tokens, streams[v], start, rows));
  for (let start = 0; start < predicted; start += step) {
    const rows = Math.min(step, predicted - start);
    const targets = tokens.subarray(start + 1, start + 1 + rows);
    const baseline = await logits(0, start, rows);
    nllSums[0] += negativeLogLikelihood(baseline, targets);
    for (let v = 1; v < variants.length; v++) {
      const compared = await logits(v, start, rows);
      nllSums[v] += negativeLogLikelihood(compared, targets);
      divergences[v].add(baseline, compared);
    }
  }
}

/** Variants that share a model share its cache: each window is run from its start. */
class CachePerModel implements Disposable {
  readonly #caches = new Map<Model, KvCache>();

  constructor(readonly capacity: number) {}

  of(model: Model): KvCache {
    const cache = this.#caches.get(model) ?? model.createCache(this.capacity);
    this.#caches.set(model, cache);
    return cache;
  }

  [Symbol.dispose](): void {
    for (const cache of this.#caches.values()) cache[Symbol.dispose]();
  }
}
