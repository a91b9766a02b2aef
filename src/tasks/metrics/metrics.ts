import type { DocumentValue } from "./aggregations.js";
import { bleuCounts } from "./bleu.js";
import { chrfCounts } from "./chrf.js";
import { type ExactMatchOptions, exactMatch } from "./exactMatch.js";
import { answerF1, answersMatch, type RougeType, rouge } from "./overlap.js";

/** What the model says of a continuation. */
export interface LogLikelihood {
  /** Sum over its tokens, in nats. */
  logLikelihood: number;
  /** Whether each of its tokens is the most probable one. */
  isGreedy: boolean;
}

/** A document whose choices were scored. */
export interface ScoredChoices {
  choices: readonly string[];
  /** Places of the right ones; one that is not there is −1. */
  gold: readonly number[];
  scored: readonly LogLikelihood[];
  /** Log-likelihoods of the choices behind nothing, where a metric asks for them. */
  alone?: readonly number[];
}

/** A document that was answered. */
export interface Answered {
  answer: string;
  references: readonly string[];
}

/** A text that was scored as a whole. */
export interface ScoredText {
  text: string;
  logLikelihood: number;
}

/** A metric in one kind of task. */
interface MetricOf<Result> {
  of(result: Result, options: ExactMatchOptions): DocumentValue;
  aggregation: string;
  higherIsBetter: boolean;
}

const mean = { aggregation: "mean", higherIsBetter: true };

/** The first place of the largest. */
function argmax(values: readonly number[]): number {
  return values.reduce((best, value, i) => (value > values[best] ? i : best), 0);
}

const lengthOf = (text: string) => Array.from(text).length;
const bytesOf = (text: string) => new TextEncoder().encode(text).length;
/** Words are what lies between blanks, as lm-evaluation-harness counts them. */
const wordsOf = (text: string) => text.split(/\s+/).length;

const sums = ({ scored }: ScoredChoices) => scored.map(({ logLikelihood }) => logLikelihood);
const hit = (gold: readonly number[], chosen: number) => (gold.includes(chosen) ? 1 : 0);

/** Accuracy where sums are divided by something of each choice. */
const accuracyPer = (unit: (choice: string) => number): MetricOf<ScoredChoices> => ({
  ...mean,
  of: (document) => hit(document.gold, argmax(sums(document).map((sum, i) => sum / unit(document.choices[i])))),
});

/** What is right and what is chosen; of several right ones the first, unless another is chosen. */
const labels = (document: ScoredChoices) => {
  const predicted = argmax(sums(document));
  return { gold: document.gold.includes(predicted) ? predicted : document.gold[0], predicted };
};

function softmax(values: readonly number[]): number[] {
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((all, power) => all + power, 0);
  return powers.map((power) => power / sum);
}

const multipleChoice: Readonly<Record<string, MetricOf<ScoredChoices>>> = {
  acc: accuracyPer(() => 1),
  acc_norm: accuracyPer(lengthOf),
  acc_bytes: accuracyPer(bytesOf),
  acc_mutual_info: {
    ...mean,
    of: (document) => hit(document.gold, argmax(sums(document).map((sum, i) => sum - document.alone![i]))),
  },
  exact_match: { ...mean, of: ({ gold, scored }) => (gold.some((at) => scored[at]?.isGreedy) ? 1 : 0) },
  f1: { aggregation: "f1", higherIsBetter: true, of: labels },
  macro_f1: { aggregation: "macro_f1", higherIsBetter: true, of: labels },
  mcc: { aggregation: "matthews_corrcoef", higherIsBetter: true, of: labels },
  brier_score: {
    aggregation: "brier_score",
    higherIsBetter: false,
    of: (document) => ({ ...labels(document), gold: document.gold[0], probabilities: softmax(sums(document)) }),
  },
};

const logLikelihood: Readonly<Record<string, MetricOf<LogLikelihood>>> = {
  perplexity: { aggregation: "perplexity", higherIsBetter: false, of: (scored) => scored.logLikelihood },
  acc: { ...mean, of: ({ isGreedy }) => (isGreedy ? 1 : 0) },
};

const perUnit = (aggregation: string, unit: (text: string) => number): MetricOf<ScoredText> => ({
  aggregation,
  higherIsBetter: false,
  of: ({ text, logLikelihood }) => ({ logLikelihood, units: unit(text) }),
});

const rolling: Readonly<Record<string, MetricOf<ScoredText>>> = {
  word_perplexity: perUnit("weighted_perplexity", wordsOf),
  byte_perplexity: perUnit("weighted_perplexity", bytesOf),
  bits_per_byte: perUnit("bits_per_byte", bytesOf),
};

/** The best over the references. */
const best = (
  score: (answer: string, reference: string, options: ExactMatchOptions) => number,
): MetricOf<Answered> => ({
  ...mean,
  of: ({ answer, references }, options) =>
    Math.max(0, ...references.map((reference) => score(answer, reference, options))),
});
const rougeOf = (type: RougeType) => best((answer, reference) => rouge(type, answer, reference).f1);

const generation: Readonly<Record<string, MetricOf<Answered>>> = {
  exact_match: best((answer, reference, options) => (exactMatch(answer, reference, options) ? 1 : 0)),
  em: best((answer, reference) => (answersMatch(answer, reference) ? 1 : 0)),
  f1: best(answerF1),
  rouge1: rougeOf("rouge1"),
  rouge2: rougeOf("rouge2"),
  rougeL: rougeOf("rougeL"),
  bleu: {
    aggregation: "bleu",
    higherIsBetter: true,
    of: ({ answer, references }) => ({ bleu: bleuCounts(answer, references) }),
  },
  chrf: {
    aggregation: "chrf",
    higherIsBetter: true,
    of: ({ answer, references }) => ({ chrf: chrfCounts(answer, references) }),
  },
};

/** Metrics by the kind of task and the names that task files call them by. */
export const metrics = {
  multiple_choice: multipleChoice,
  loglikelihood: logLikelihood,
  loglikelihood_rolling: rolling,
  generate_until: generation,
};

/** Those of a task that names none. */
export const defaultMetrics: Readonly<Record<keyof typeof metrics, readonly string[]>> = {
  multiple_choice: ["acc", "acc_norm"],
  loglikelihood: ["perplexity", "acc"],
  loglikelihood_rolling: ["word_perplexity", "byte_perplexity", "bits_per_byte"],
  generate_until: ["exact_match"],
};

export const metricNames: readonly string[] = [...new Set(Object.values(metrics).flatMap((each) => Object.keys(each)))];
