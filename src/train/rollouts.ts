import type { Random } from "../core/index.js";
import {
  drawnName,
  importanceName,
  judgementName,
  type MiniLlmOptions,
  returnName,
  writtenName,
} from "./models/miniLlmOptions.js";
import type { Batch, BatchArray } from "./objective.js";
import type { FloatArray } from "./values.js";

/** Log probabilities of the tokens of one text as they were drawn. */
export interface DrawnTokens {
  /** log q, of the student. */
  student: readonly number[];
  /** log p, of the teacher. */
  teacher: readonly number[];
}

/** By token: what makes up for the teacher's share in the drawing, and the return. */
export interface Credit {
  importance: number[];
  returns: number[];
}

/**
 * What each token drawn counts. The return of token t is Σ of log(p / q) over the tokens behind it, with `lengthNormalised` their
 * mean, and 0 behind the last; without `singleStep` it begins at the token itself.
 */
export function creditOf({ student, teacher }: DrawnTokens, options: MiniLlmOptions): Credit {
  const { teacherMix, singleStep, lengthNormalised, importance } = options;
  const ratios = student.map((logQ, t) => 1 / (1 - teacherMix + teacherMix * Math.exp(teacher[t] - logQ)));
  const whole = ratios.reduce((product, ratio) => product * ratio, 1);
  const rewards = student.map((logQ, t) => teacher[t] - logQ);
  return {
    importance: ratios.map((ratio) => (importance === "text" ? whole : ratio)),
    returns: rewards.map((_, t) => {
      const counted = rewards.slice(singleStep ? t + 1 : t);
      const sum = counted.reduce((all, reward) => all + reward, 0);
      return lengthNormalised && counted.length > 0 ? sum / counted.length : sum;
    }),
  };
}

/** What predicts the next tokens of every position, f32 [rows, vocabSize]. */
export type Predict = (batch: Batch) => Promise<FloatArray>;

/** Who writes and who judges. */
export interface Writers {
  student: Predict;
  teacher: Predict;
  vocabSize: number;
  /** Tokens of a window. */
  window: number;
}

/**
 * Texts that the student goes on with, its teacher's share in every token: the beginnings are those of the windows of a batch,
 * their last `length` tokens are drawn anew. Every token takes a pass of both models over the windows.
 * @param batch with `tokens`, int32 [texts · window]
 * @param random decides what is drawn
 * @returns the batch with the arrays that the loss reads
 */
export async function writeTexts(
  batch: Batch,
  { student, teacher, vocabSize, window }: Writers,
  options: MiniLlmOptions,
  random: Random,
): Promise<Batch> {
  const tokens = Int32Array.from(batch.tokens.values);
  const texts = tokens.length / window;
  const first = window - options.length;
  const drawn = new Int32Array(tokens.length).fill(-1);
  const records = Array.from({ length: texts }, () => ({ student: [] as number[], teacher: [] as number[] }));
  const arrays = (): Batch => {
    const one = { shape: [tokens.length], values: tokens.slice() };
    // Models look at `tokens` alone; labels are there for their shape.
    return { tokens: one, label: one };
  };
  let judgement: FloatArray = new Float32Array();
  for (let t = first; t <= window; t++) {
    judgement = await teacher(arrays());
    if (t === window) break;
    const own = await student(arrays());
    for (let text = 0; text < texts; text++) {
      const row = (text * window + t - 1) * vocabSize;
      const q = logSoftmax(own.subarray(row, row + vocabSize));
      const p = logSoftmax(judgement.subarray(row, row + vocabSize));
      const token = draw(q, p, options.teacherMix, random);
      tokens[text * window + t] = token;
      drawn[text * window + t - 1] = token;
      records[text].student.push(q[token]);
      records[text].teacher.push(p[token]);
    }
  }
  const importance = new Float32Array(tokens.length);
  const returns = new Float32Array(tokens.length);
  for (const [text, record] of records.entries()) {
    const credit = creditOf(record, options);
    importance.set(credit.importance, text * window + first - 1);
    returns.set(credit.returns, text * window + first - 1);
  }
  const flat = (values: BatchArray["values"]): BatchArray => ({ shape: [values.length], values });
  return {
    ...batch,
    [writtenName]: flat(tokens),
    [drawnName]: flat(drawn),
    [importanceName]: flat(importance),
    [returnName]: flat(returns),
    [judgementName]: { shape: [tokens.length, vocabSize], values: judgement },
  };
}

function logSoftmax(logits: FloatArray): Float64Array {
  let largest = Number.NEGATIVE_INFINITY;
  for (const value of logits) largest = Math.max(largest, value);
  let sum = 0;
  for (const value of logits) sum += Math.exp(value - largest);
  const norm = largest + Math.log(sum);
  return Float64Array.from(logits, (value) => value - norm);
}

/** A token of the mixture share·p + (1 − share)·q, given by their logarithms. */
function draw(q: Float64Array, p: Float64Array, share: number, random: Random): number {
  let left = random.uniform();
  for (let token = 0; token < q.length; token++) {
    left -= share * Math.exp(p[token]) + (1 - share) * Math.exp(q[token]);
    if (left < 0) return token;
  }
  return q.length - 1;
}
