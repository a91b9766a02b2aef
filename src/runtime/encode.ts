import { isEncoder } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Activation } from "../kernels/index.js";
import type { ForwardOptions, Model } from "../model/index.js";

/** How a text is read as a whole. */
export interface EncodeOptions {
  /** Type of every token, 1 in the second of two texts; default 0. */
  types?: Uint32Array;
  /** Those of this pass; see `ForwardOptions.thresholds`. */
  thresholds?: ForwardOptions["thresholds"];
  signal?: AbortSignal;
}

/** What a model that classifies makes of a text. */
export interface Classification {
  /** f32 [labels] */
  logits: Float32Array;
  /** softmax(logits), f64 [labels] */
  probabilities: Float64Array;
  /** The most probable; of equals the first. */
  label: string;
}

/** What the vector of a text is made of: the mean of its tokens' vectors, or that of its first token ("[CLS]"). */
export type Pooling = "mean" | "first";

/**
 * The label of a text (BERT, arXiv 1810.04805).
 * @param tokens of the whole text, with the special tokens that the model was made with; at most `config.maxPositions`
 * @throws UsageError for a model that does not classify
 */
export async function classify(
  model: Model,
  tokens: Uint32Array,
  options: EncodeOptions = {},
): Promise<Classification> {
  const { head } = model.config.spec;
  if (head.kind !== "classifier") {
    throw new UsageError(`this ${model.config.modelType} model has no head that classifies`);
  }
  return onStream(model, tokens, options, async (stream) => {
    const values = model.head(stream.rowRange(0, 1));
    const logits = (await model.backend.read(values)).slice(0, head.labels.length);
    model.backend.release(values);
    const largest = logits.reduce((a, b) => Math.max(a, b));
    const powers = Float64Array.from(logits, (logit) => Math.exp(logit - largest));
    const sum = powers.reduce((a, b) => a + b);
    return {
      logits,
      probabilities: powers.map((power) => power / sum),
      label: head.labels[logits.indexOf(largest)],
    };
  });
}

/**
 * A vector of a text, of length 1: texts that mean alike have a large dot product (Sentence-BERT, arXiv 1908.10084).
 * @param tokens as for `classify`
 * @returns f32 [hiddenSize]
 * @throws UsageError for a model that reads texts token by token
 */
export async function embedText(
  model: Model,
  tokens: Uint32Array,
  options: EncodeOptions & { pooling?: Pooling } = {},
): Promise<Float32Array> {
  const { pooling = "mean" } = options;
  return onStream(model, tokens, options, async (stream) => {
    const { cols } = stream;
    const values = await model.backend.read(stream);
    const rows = pooling === "first" ? 1 : tokens.length;
    const sums = new Float64Array(cols);
    for (let i = 0; i < rows * cols; i++) sums[i % cols] += values[i];
    const length = Math.hypot(...sums) || 1;
    return Float32Array.from(sums, (sum) => sum / length);
  });
}

/** Runs all tokens at once and hands over what the last block leaves. */
async function onStream<T>(
  model: Model,
  tokens: Uint32Array,
  { types, thresholds, signal }: EncodeOptions,
  use: (stream: Activation) => Promise<T>,
): Promise<T> {
  const { config, backend } = model;
  if (!isEncoder(config.spec)) {
    throw new UsageError(
      `this ${config.modelType} model reads texts token by token; classify and embedText take encoders`,
    );
  }
  if (types !== undefined && types.length !== tokens.length) {
    throw new UsageError(`${types.length} types for ${tokens.length} tokens`);
  }
  signal?.throwIfAborted();
  using cache = model.createCache(tokens.length);
  const stream = model.embed(tokens, 0, types);
  try {
    for (let layer = 0; layer < config.layers; layer++) {
      signal?.throwIfAborted();
      await model.block(layer, stream, cache, 0, { thresholds });
    }
    return await use(stream);
  } finally {
    backend.release(stream);
  }
}
