import { UsageError } from "../core/index.js";

/**
 * How a text is cut for perplexity.
 * - `windows`: one after the other, each a text of its own; with a begin-of-text token in front of each where one is given.
 * - `rolling`: windows that begin `stride` tokens apart and score only what no window before them scored; a begin-of-text
 *   token in front of the text where one is given.
 * - `lmEval`: as `loglikelihood_rolling` of lm-evaluation-harness, every token scored once with one token of context at least.
 */
export type Convention = "windows" | "rolling" | "lmEval";
/** The conventions by which windows of a text are cut and counted, by name. */
export const conventions: readonly Convention[] = ["windows", "rolling", "lmEval"];

/** Whether a convention wants the begin-of-text token without being asked. */
export const needsBegin = (convention: Convention): boolean => convention === "lmEval";

export interface WindowOptions {
  convention: Convention;
  /** Tokens of a window. */
  window: number;
  /** Of `rolling`: at most a window. */
  stride: number;
  /** The begin-of-text token; `lmEval` needs one. */
  begin: number | undefined;
  maxWindows: number;
}

/** One run of a model: row `firstRow + i` of its outputs predicts `targets[i]`. */
export interface EvaluationWindow {
  inputs: Uint32Array;
  targets: Uint32Array;
  firstRow: number;
}

export interface EvaluationWindows {
  count: number;
  at(w: number): EvaluationWindow;
  /** Tokens of the text up to the end of the last window. */
  coveredTokens: number;
  /** All that are scored. */
  scoredTokens: number;
}

/** @throws UsageError for options that do not fit */
export function evaluationWindows(tokens: Uint32Array, options: WindowOptions): EvaluationWindows {
  const { convention, window, stride } = options;
  if (!(Number.isSafeInteger(window) && window >= 2))
    throw new UsageError(`a window of ${window} tokens predicts nothing; take at least 2`);
  if (!(Number.isSafeInteger(stride) && stride >= 1 && stride <= window))
    throw new UsageError(`a stride of ${stride}; it is a whole number from 1 to the window, ${window}`);
  const windows = cuts[convention](tokens, options);
  let scoredTokens = 0;
  for (let w = 0; w < windows.count; w++) scoredTokens += windows.at(w).targets.length;
  return { ...windows, scoredTokens };
}

type Cut = (tokens: Uint32Array, options: WindowOptions) => Omit<EvaluationWindows, "scoredTokens">;

const cuts: Readonly<Record<Convention, Cut>> = {
  windows(tokens, { window, begin, maxWindows }) {
    const count = Math.min(maxWindows, Math.floor(tokens.length / window));
    const at = (w: number): EvaluationWindow => {
      const inputs = tokens.subarray(w * window, (w + 1) * window);
      if (begin === undefined) return { inputs, targets: inputs.subarray(1), firstRow: 0 };
      return { inputs: begun(begin, inputs.subarray(0, -1)), targets: inputs, firstRow: 0 };
    };
    return { count, at, coveredTokens: count * window };
  },

  rolling(text, { window, stride, begin, maxWindows }) {
    const tokens = begin === undefined ? text : begun(begin, text);
    const all = tokens.length < 2 ? 0 : Math.max(0, Math.ceil((tokens.length - window) / stride)) + 1;
    const count = Math.min(maxWindows, all);
    const endOf = (w: number) => Math.min(w * stride + window, tokens.length);
    const at = (w: number): EvaluationWindow => {
      const start = w * stride;
      // The first token of a window has nothing before it.
      const from = Math.max(w === 0 ? 0 : endOf(w - 1), start + 1);
      return {
        inputs: tokens.subarray(start, endOf(w) - 1),
        targets: tokens.subarray(from, endOf(w)),
        firstRow: from - 1 - start,
      };
    };
    const covered = count === 0 ? 0 : endOf(count - 1) - (begin === undefined ? 0 : 1);
    return { count, at, coveredTokens: covered };
  },

  lmEval(text, { window, begin, maxWindows }) {
    if (begin === undefined)
      throw new UsageError("the convention lmEval begins a text with a begin-of-text token (bos)");
    const tokens = begun(begin, text);
    const count = Math.min(maxWindows, Math.ceil(text.length / window));
    const at = (w: number): EvaluationWindow => {
      // Places in `tokens`; the last window is filled up with what is before it.
      const [from, end] = [w * window + 1, Math.min((w + 1) * window, text.length) + 1];
      const start = w === 0 ? 0 : Math.max(1, end - 1 - window);
      return {
        inputs: tokens.subarray(start, end - 1),
        targets: tokens.subarray(from, end),
        firstRow: from - 1 - start,
      };
    };
    return { count, at, coveredTokens: Math.min(text.length, count * window) };
  },
};

function begun(begin: number, tokens: Uint32Array): Uint32Array {
  const result = new Uint32Array(tokens.length + 1);
  result[0] = begin;
  result.set(tokens, 1);
  return result;
}

/** Perplexities of a text in other units than tokens, from the sum of its negative log likelihoods in nats. */
export interface TextPerplexity {
  wordPerplexity: number;
  bytePerplexity: number;
  bitsPerByte: number;
}

/** Words are what lies between blanks, in Python's sense, as lm-evaluation-harness counts them. */
export function textPerplexity(nllSum: number, text: string): TextPerplexity {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: Python counts four of them as blanks.
  const words = text.split(/[\t-\r\u001c- \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/).length;
  const bytes = new TextEncoder().encode(text).length;
  return {
    wordPerplexity: Math.exp(nllSum / words),
    bytePerplexity: Math.exp(nllSum / bytes),
    bitsPerByte: nllSum / (bytes * Math.LN2),
  };
}
