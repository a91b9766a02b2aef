import { UsageError } from "../../core/index.js";
import { type BleuCounts, bleu } from "./bleu.js";
import { type ChrfCounts, chrf } from "./chrf.js";
import { binaryF1, type Labels, macroF1, matthewsCorrelation } from "./classification.js";

/** What a metric keeps of one document. */
export type DocumentValue =
  | number
  /** Log-likelihood in nats, and the words or bytes that it is of. */
  | { logLikelihood: number; units: number }
  /** Classes; probabilities of all where they are asked for. */
  | { gold: number; predicted: number; probabilities?: readonly number[] }
  | { bleu: BleuCounts }
  | { chrf: ChrfCounts };

/** Makes one figure of what a metric kept of each document. */
export interface Aggregation {
  /** @returns the figure of the documents at given places, any of them any number of times */
  over(values: readonly DocumentValue[]): (indices: ArrayLike<number>) => number;
  /**
   * How the standard error comes about, as in lm-evaluation-harness: from the spread of the values, from resamples, at most so many
   * of them, or not at all.
   */
  standardError: "spread" | { resamples: number } | undefined;
}

/** Resamples of a corpus metric at most. */
const fewResamples = { resamples: 100 };
const manyResamples = { resamples: Number.POSITIVE_INFINITY };

/** The part of the values that an aggregation works on. @throws UsageError where a metric keeps something else */
function partOf<T>(values: readonly DocumentValue[], read: (value: DocumentValue) => T | undefined): T[] {
  return values.map((value) => {
    const part = read(value);
    if (part === undefined) throw new UsageError("the aggregation does not go with the metric");
    return part;
  });
}

const numbers = (values: readonly DocumentValue[]) =>
  Float64Array.from(partOf(values, (value) => (typeof value === "number" ? value : undefined)));
const field = <K extends string, T>(value: DocumentValue, key: K): T | undefined =>
  typeof value === "object" && key in value ? (value as unknown as Record<K, T>)[key] : undefined;

function meanOf(values: ArrayLike<number>, indices: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < indices.length; i++) sum += values[indices[i]];
  return sum / indices.length;
}

const ofNumbers =
  (figure: (mean: number) => number): Aggregation["over"] =>
  (values) => {
    const all = numbers(values);
    return (indices) => figure(meanOf(all, indices));
  };

/** Of the log-likelihood of all documents, by all their words or bytes. */
const ofUnits =
  (figure: (perUnit: number) => number): Aggregation["over"] =>
  (values) => {
    const sums = partOf(values, (value) => field<"logLikelihood", number>(value, "logLikelihood"));
    const units = partOf(values, (value) => field<"units", number>(value, "units"));
    return (indices) => figure(meanOf(sums, indices) / meanOf(units, indices));
  };

const ofLabels =
  (figure: (labels: Labels, indices: ArrayLike<number>) => number): Aggregation["over"] =>
  (values) => {
    const gold = partOf(values, (value) => field<"gold", number>(value, "gold"));
    const predicted = partOf(values, (value) => field<"predicted", number>(value, "predicted"));
    return (indices) => figure({ gold, predicted }, indices);
  };

function ofCounts<T>(key: string, figure: (counts: readonly T[]) => number): Aggregation["over"] {
  return (values) => {
    const counts = partOf(values, (value) => field<string, T>(value, key));
    return (indices) => figure(Array.from(indices, (at) => counts[at]));
  };
}

const brier: Aggregation["over"] = (values) => {
  const squares = partOf(values, (value) => {
    const probabilities = field<"probabilities", readonly number[]>(value, "probabilities");
    const gold = field<"gold", number>(value, "gold");
    return probabilities?.reduce((sum, p, i) => sum + (p - (i === gold ? 1 : 0)) ** 2, 0);
  });
  return (indices) => meanOf(squares, indices);
};

const median: Aggregation["over"] = (values) => {
  const all = numbers(values);
  return (indices) => Float64Array.from(indices, (at) => all[at]).sort()[indices.length >> 1];
};

/** Aggregations by the names that task files call them by. */
export const aggregations: Readonly<Record<string, Aggregation>> = {
  mean: { over: ofNumbers((mean) => mean), standardError: "spread" },
  median: { over: median, standardError: manyResamples },
  perplexity: { over: ofNumbers((mean) => Math.exp(-mean)), standardError: manyResamples },
  weighted_perplexity: { over: ofUnits((perUnit) => Math.exp(-perUnit)), standardError: undefined },
  bits_per_byte: { over: ofUnits((perUnit) => -perUnit / Math.LN2), standardError: undefined },
  f1: { over: ofLabels(binaryF1), standardError: manyResamples },
  macro_f1: { over: ofLabels(macroF1), standardError: manyResamples },
  matthews_corrcoef: { over: ofLabels(matthewsCorrelation), standardError: manyResamples },
  brier_score: { over: brier, standardError: undefined },
  bleu: { over: ofCounts<BleuCounts>("bleu", bleu), standardError: fewResamples },
  chrf: { over: ofCounts<ChrfCounts>("chrf", chrf), standardError: fewResamples },
};
