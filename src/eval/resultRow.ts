import type { WeightFormatId } from "../pack/index.js";
import type { Quality } from "./quality.js";
import type { Speed } from "./speed.js";
import type { Convention } from "./windows.js";

/**
 * What was measured of one variant in one run. Every field but the first three is absent where it was not measured; a
 * row of a table, a line of JSON and the `result` of an artifact are all this.
 */
export interface ResultRow {
  model: string;
  weights: WeightFormatId;
  /**
   * Share of zeroed inputs, realised and not requested: weighted by the weights they save where quality was measured, as
   * skipped in decoding otherwise. 0 is dense.
   */
  activationSparsity: number;

  perplexity?: number;
  /** Mean negative log likelihood in nats. */
  nll?: number;
  /** Perplexity of the same sum per word and per byte, and in bits. */
  wordPerplexity?: number;
  bytePerplexity?: number;
  bitsPerByte?: number;
  /** How the text was cut; absent for windows without overlap and begin-of-text token. */
  convention?: Convention;
  stride?: number;
  bos?: true;
  /** Predicted tokens. */
  tokens?: number;
  window?: number;
  windows?: number;
  textSha256?: string;
  /** From the first row, in nats per token. */
  klDivergence?: number;
  top1Agreement?: number;

  backend?: string;
  threads?: number;
  prefillTokens?: number;
  contextTokens?: number;
  decodeTokens?: number;
  repeats?: number;
  prefillTokensPerSecond?: number;
  decodeTokensPerSecond?: number;
  bytesPerToken?: number;
  /** Read bandwidth of the machine in bytes per second, measured with the same number of threads. */
  readBandwidth?: number;
  /** bytesPerToken · decodeTokensPerSecond / readBandwidth. */
  bandwidthShare?: number;
  peakMemoryBytes?: number;

  /** Numbers stored for the projections of all blocks (non-zeros, factors), per weight that they had in the source. */
  densityStored?: number;
  /** Of the weight files. */
  bytesOnDisk?: number;
  /** What making it took, all included. */
  elapsedMs?: number;
}

/** What a row is made of; `quality` and `speed` are of the same variant. */
export interface Measured {
  model: string;
  weights: WeightFormatId;
  quality?: Quality;
  speed?: Speed;
  backend?: string;
  /** Bytes per second. */
  readBandwidth?: number;
}

/** Joins what was measured of one variant. */
export function resultRow({ model, weights, quality, speed, backend, readBandwidth }: Measured): ResultRow {
  const activationSparsity = quality?.activationSparsity ?? speed?.inputsSkipped ?? 0;
  const row: ResultRow = { model, weights, activationSparsity };
  if (quality !== undefined) {
    const { name: _name, activationSparsity: _realised, divergence, ...figures } = quality;
    Object.assign(row, figures, divergence);
  }
  if (backend !== undefined) row.backend = backend;
  if (speed !== undefined) {
    const { name: _name, inputsSkipped: _skipped, ...figures } = speed;
    Object.assign(row, figures);
    if (readBandwidth !== undefined) {
      row.readBandwidth = readBandwidth;
      row.bandwidthShare = (speed.bytesPerToken * speed.decodeTokensPerSecond) / readBandwidth;
    }
  }
  return row;
}
