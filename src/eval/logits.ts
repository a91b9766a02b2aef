import type { Activation } from "../kernels/index.js";
import { explainNonFinite, firstNonFiniteOf, type Model } from "../model/index.js";

/** Logits of some consecutive positions. */
export interface LogitRows {
  /** f32 [rows, stride]; columns from `vocabSize` on are padding. */
  values: Float32Array;
  rows: number;
  stride: number;
  vocabSize: number;
  /** f64 [rows], ln Σ exp of every row, so that ln p = value − logSumExp. */
  logSumExp: Float64Array;
}

/** Logits are looked at in pieces of at most this many numbers (32 MiB), whatever the vocabulary. */
const chunkValues = 2 ** 23;

/** How many positions fit a piece; at least 1. */
export function rowsPerChunk(vocabSize: number): number {
  return Math.max(1, Math.floor(chunkValues / vocabSize));
}

/**
 * Logits of rows [start, start + rows) of the residual stream f32 [tokens, hiddenSize] after the last block.
 * @param tokens what the stream was run from
 * @throws NonFiniteError that names the layer where numbers left the finite range
 */
export async function logitRows(
  model: Model,
  tokens: Uint32Array,
  stream: Activation,
  start: number,
  rows: number,
): Promise<LogitRows> {
  const logits = model.head(stream.rowRange(start, rows));
  try {
    const values = await model.backend.read(logits);
    if (firstNonFiniteOf(values) >= 0) throw await explainNonFinite(model, tokens);
    return withLogSumExp(values, logits.cols, model.config.vocabSize);
  } finally {
    model.backend.release(logits);
  }
}

/** @param values f32 [rows, stride] */
export function withLogSumExp(values: Float32Array, stride: number, vocabSize: number): LogitRows {
  const rows = values.length / stride;
  const logSumExp = new Float64Array(rows);
  for (let row = 0; row < rows; row++) {
    const begin = row * stride;
    const end = begin + vocabSize;
    let largest = values[begin];
    for (let i = begin + 1; i < end; i++) if (values[i] > largest) largest = values[i];
    let sum = 0;
    for (let i = begin; i < end; i++) sum += Math.exp(values[i] - largest);
    logSumExp[row] = largest + Math.log(sum);
  }
  return { values, rows, stride, vocabSize, logSumExp };
}
