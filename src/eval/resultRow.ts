import type { RunsAs } from "../model/index.js";
import type { WeightFormatId } from "../pack/index.js";
import type { Attention, Exits, KvChoice } from "../runtime/index.js";
import { type MeasuredSpeed, speedsDiffer } from "./measuredSpeed.js";
import type { Quality } from "./quality.js";
import type { Speed } from "./speed.js";
import type { TaskRow } from "./taskRow.js";
import type { Convention } from "./windows.js";

/**
 * What was measured of one variant in one run. Every field but the first three is absent where it was not measured; a
 * row of a table, a line of JSON and the `result` of an artifact are all this.
 */
export interface ResultRow {
  model: string;
  weights: WeightFormatId;
  /** What its matrices ran as on this machine, and why; absent in rows of versions that did not note it. */
  runsAs?: readonly RunsAs[];
  /**
   * Share of zeroed inputs, realised and not requested: weighted by the weights they save where quality was measured, as
   * skipped in decoding otherwise. 0 is dense.
   */
  activationSparsity: number;
  /** Attention pattern and KV policy, where the model ran with another one than its own. */
  attention?: string;
  kv?: string;
  /** Early exit, and layers behind which tokens left, on average. */
  exits?: string;
  meanExitLayer?: number;
  /** Layers that were run by decoded token, and how often the head was asked whether it may leave. */
  layersPerToken?: number;
  probesPerToken?: number;
  /** Share of the weights behind gates that tokens met: of decoded ones where speed was measured. */
  layerShare?: number;
  /** Share of the keys and values that attention read, of those it reads without a pattern or a KV policy. */
  attendedShare?: number;

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
  /** First tokens of each window that were not scored. */
  promptTokens?: number;
  /** Predicted tokens. */
  tokens?: number;
  window?: number;
  windows?: number;
  textSha256?: string;
  /** From the first row, in nats per token. */
  klDivergence?: number;
  top1Agreement?: number;

  /** Figures of tasks. */
  tasks?: readonly TaskRow[];

  backend?: string;
  threads?: number;
  prefillTokens?: number;
  contextTokens?: number;
  decodeTokens?: number;
  repeats?: number;
  prefillTokensPerSecond?: MeasuredSpeed;
  decodeTokensPerSecond?: MeasuredSpeed;
  bytesPerToken?: number;
  /** Read bandwidth of the machine in bytes per second, measured with the same number of threads. */
  readBandwidth?: number;
  /** bytesPerToken · median decodeTokensPerSecond / readBandwidth. */
  bandwidthShare?: number;
  /** Of a decoded token: processor time of all threads; of a GPU how long it computes, and calls of its interface. */
  cpuMsPerToken?: number;
  gpuMsPerToken?: number;
  dispatchesPerToken?: number;
  passesPerToken?: number;
  submitsPerToken?: number;
  /** Bytes that keys and values took. */
  cacheBytes?: number;
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
  attention?: Attention;
  kv?: KvChoice;
  exits?: Exits;
  quality?: Quality;
  tasks?: readonly TaskRow[];
  speed?: Speed;
  backend?: string;
  /** Bytes per second. */
  readBandwidth?: number;
}

/** Joins what was measured of one variant. */
export function resultRow(measured: Measured): ResultRow {
  const { model, weights, attention, kv, exits, quality, tasks, speed, backend, readBandwidth } = measured;
  const activationSparsity = quality?.activationSparsity ?? speed?.inputsSkipped ?? 0;
  const row: ResultRow = { model, weights, activationSparsity };
  if (attention !== undefined) row.attention = attention.text;
  if (kv !== undefined) row.kv = kv.text;
  if (exits !== undefined) row.exits = exits.text;
  if (quality !== undefined) {
    const { name: _name, activationSparsity: _realised, attendedShare, divergence, ...figures } = quality;
    Object.assign(row, figures, divergence);
    if (attention !== undefined || kv !== undefined) row.attendedShare = attendedShare;
  }
  if (tasks !== undefined) row.tasks = tasks;
  if (backend !== undefined) row.backend = backend;
  if (speed !== undefined) {
    const { name: _name, inputsSkipped: _skipped, ...figures } = speed;
    Object.assign(row, figures);
    if (readBandwidth !== undefined) {
      row.readBandwidth = readBandwidth;
      row.bandwidthShare = (speed.bytesPerToken * speed.decodeTokensPerSecond.median) / readBandwidth;
    }
  }
  return row;
}

/** "dense", "2:4", "bitmask 50 %" (the share of zeros it leaves out), "80 % bitmask 50 %, 20 % dense" by share of matrices. */
export function runsAsInWords({ runsAs }: Pick<ResultRow, "runsAs">): string | undefined {
  if (runsAs === undefined || runsAs.length === 0) return undefined;
  const name = ({ structure, zeros }: RunsAs) =>
    structure === "dense" || structure === "2:4" || structure === "int8-mixed"
      ? structure
      : `${structure} ${(100 * zeros).toFixed(0)} %`;
  if (runsAs.length === 1) return name(runsAs[0]);
  return runsAs.map((part) => `${(100 * part.share).toFixed(0)} % ${name(part)}`).join(", ");
}

/**
 * How many times as fast a row decodes as another; undefined where that is not known: the ranges of their rounds meet, or both read
 * the same bytes with the same kernels, so that whatever differs is the machine.
 */
export function speedRatio(row: ResultRow, of: ResultRow): number | undefined {
  const [a, b] = [row.decodeTokensPerSecond, of.decodeTokensPerSecond];
  if (a === undefined || b === undefined || row === of || !speedsDiffer(a, b)) return undefined;
  const [bytes, otherBytes] = [row.bytesPerToken ?? 0, of.bytesPerToken ?? 0];
  const sameBytes = Math.abs(bytes - otherBytes) <= 0.001 * Math.max(bytes, otherBytes);
  const sameKernels = row.weights === of.weights && runsAsInWords(row) === runsAsInWords(of);
  return sameBytes && sameKernels ? undefined : a.median / b.median;
}
