import { breathe, type Random } from "../../core/index.js";
import type { Batch } from "../objective.js";
import type { Predict } from "../rollouts.js";
import { endId, promptLength, promptOf, type Report, responseLength, vocabulary, window } from "./distillationTask.js";

const vocabSize = vocabulary.length;

/** Logits of windows that hold prompts and responses, some at a time. */
async function* passes(
  predict: Predict,
  reports: readonly Report[],
  responses: readonly Int32Array[],
  batchSize: number,
  signal?: AbortSignal,
) {
  for (let first = 0; first < reports.length; first += batchSize) {
    await breathe(signal);
    const tokens = new Int32Array(batchSize * window);
    for (let i = 0; i < Math.min(batchSize, reports.length - first); i++) {
      tokens.set(promptOf(reports[first + i]), i * window);
      tokens.set(responses[first + i], i * window + promptLength);
    }
    const array = { shape: [tokens.length], values: tokens };
    const batch: Batch = { tokens: array, label: array };
    yield { first, batch, logits: await predict(batch) };
  }
}

/** The logits at the token that predicts response token `t` of text `i` of a pass. */
const rowOf = (
  logits: ArrayLike<number> & { subarray(from: number, to: number): ArrayLike<number> },
  i: number,
  t: number,
) => {
  const row = (i * window + promptLength - 1 + t) * vocabSize;
  return logits.subarray(row, row + vocabSize);
};

/** log softmax, f64. */
function logShares(logits: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(logits);
  const largest = values.reduce((a, b) => Math.max(a, b));
  const norm = largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return values.map((value) => value - norm);
}

/**
 * What a model responds to every report: its likeliest tokens, or with `random` tokens drawn from what it predicts. All of the model's
 * windows are run anew for each token.
 */
export async function writeResponses(
  predict: Predict,
  reports: readonly Report[],
  batchSize: number,
  random?: Random,
  signal?: AbortSignal,
): Promise<Int32Array[]> {
  const responses = reports.map(() => new Int32Array(responseLength).fill(endId));
  for (let t = 0; t < responseLength; t++) {
    for await (const { first, logits } of passes(predict, reports, responses, batchSize, signal)) {
      for (let i = 0; i < batchSize && first + i < reports.length; i++) {
        const response = responses[first + i];
        if (response.subarray(0, t).includes(endId)) continue;
        const logs = logShares(rowOf(logits as Float32Array, i, t));
        response[t] = random === undefined ? logs.indexOf(logs.reduce((a, b) => Math.max(a, b))) : draw(logs, random);
      }
    }
  }
  return responses;
}

function draw(logs: Float64Array, random: Random): number {
  let left = random.uniform();
  for (const [token, log] of logs.entries()) {
    left -= Math.exp(log);
    if (left < 0) return token;
  }
  return logs.length - 1;
}

/**
 * KL(teacher ‖ student) of the next token, added up over the first 1, 2 … tokens of a response, its end included; the mean over
 * responses. Behind texts of the student that is R(l) of the error that accumulates, behind those of the teacher l·ε(l) (Arora et al.
 * 2022, arXiv:2204.01171; as MiniLLM measures exposure bias).
 */
export async function accumulatedError(
  student: Predict,
  teacher: Predict,
  reports: readonly Report[],
  responses: readonly Int32Array[],
  batchSize: number,
  signal?: AbortSignal,
): Promise<number[]> {
  const sums = new Float64Array(responseLength);
  for await (const { first, batch, logits } of passes(teacher, reports, responses, batchSize, signal)) {
    const own = await student(batch);
    for (let i = 0; i < batchSize && first + i < reports.length; i++) {
      const ended = responses[first + i].indexOf(endId);
      for (let t = 0; t < responseLength && (ended < 0 || t <= ended); t++) {
        const [p, q] = [logits, own].map((all) => logShares(rowOf(all as Float32Array, i, t)));
        sums[t] += p.reduce((sum, log, token) => sum + Math.exp(log) * (log - q[token]), 0) / reports.length;
      }
    }
  }
  return Array.from(sums, (_, t) => sums.subarray(0, t + 1).reduce((all, sum) => all + sum, 0));
}
