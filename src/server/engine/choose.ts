import { NonFiniteError } from "../../core/index.js";
import type { Activation } from "../../kernels/index.js";
import { firstNonFiniteOf, type Model } from "../../model/index.js";
import { logProbability, type TogetherTurn } from "../../runtime/index.js";
import type { Job } from "./job.js";
import type { TokenLogprob } from "./request.js";

/** Whose rows of the logits are whose. */
interface Row {
  readonly job: Job;
  readonly turn: TogetherTurn;
  readonly firstRow: number;
}

/** Chooses the next token of every job whose rows are there, and notes what was asked for of its prompt. */
export async function chooseTokens(model: Model, logits: Activation, rows: readonly Row[]): Promise<void> {
  const { backend } = model;
  const { vocabSize } = model.config;
  if (rows.every(({ job }) => job.plain)) {
    const tops = await backend.topK(logits, 1);
    for (const { job, firstRow } of rows) {
      const { ids, values } = tops[firstRow];
      if (!Number.isFinite(values[0])) job.fail(notFinite());
      else finishTurn(job, () => job.push(ids[0], undefined));
    }
    return;
  }
  const all = await backend.read(logits);
  const rowAt = (r: number) => all.subarray(r * logits.cols, r * logits.cols + vocabSize);
  for (const { job, turn, firstRow } of rows) {
    const count = turn.logits === "all" ? turn.tokens.length : 1;
    const last = rowAt(firstRow + count - 1);
    if (firstNonFiniteOf(last) >= 0) {
      job.fail(notFinite());
      continue;
    }
    if (turn.logits === "all") notePrompt(job, turn, (r) => rowAt(firstRow + r));
    if (job.inPrompt) continue;
    try {
      const chosen = job.request.maxTokens === 0 ? undefined : await choose(job, last);
      finishTurn(job, () => chosen && job.push(chosen.id, chosen.logprob));
    } catch (error) {
      // What one text is held to is no matter of the others.
      job.fail(error);
    }
  }
}

/** Tells that the prompt has run, where it just has, before the first token. */
function finishTurn(job: Job, push: () => void): void {
  if (job.generated.length === 0) job.promptRan();
  if (!job.done) push();
}

const notFinite = () => new NonFiniteError("the model gave numbers that are not finite for this text");

/** Log probabilities of prompt tokens: a row tells of the token behind it. */
function notePrompt(job: Job, { tokens }: TogetherTurn, row: (r: number) => Float32Array): void {
  const { prompt, logprobs = 0 } = job.request;
  const end = job.held!.sequence.length;
  const begin = end - tokens.length;
  if (begin === 0) job.promptLogprobs.push({ id: prompt[0], logprob: undefined, top: [] });
  for (let r = 0; r < tokens.length && begin + r + 1 < prompt.length; r++) {
    job.promptLogprobs.push(logprobOf(row(r), prompt[begin + r + 1], logprobs));
  }
}

/** @param row f32 [vocabSize], changed */
async function choose(job: Job, row: Float32Array): Promise<{ id: number; logprob: TokenLogprob | undefined }> {
  const { logprobs, bias, presencePenalty, frequencyPenalty, constraint } = job.request;
  const before = logprobs === undefined ? row : row.slice();
  if (presencePenalty !== 0 || frequencyPenalty !== 0) {
    for (const [id, count] of job.counts) row[id] -= presencePenalty + frequencyPenalty * count;
  }
  for (const [id, by] of bias) row[id] += by;
  await constraint?.mask(row);
  const id = job.sampler.pick(row, job.held!.sequence.tokens);
  return { id, logprob: logprobs === undefined ? undefined : logprobOf(before, id, logprobs) };
}

function logprobOf(row: Float32Array, id: number, count: number): TokenLogprob {
  const logprob = logProbability(row, id);
  const total = row[id] - logprob;
  const of = (other: number) => (other === id ? logprob : row[other] - total);
  return { id, logprob, top: largest(row, count).map((other) => ({ id: other, logprob: of(other) })) };
}

/** Ids of the largest values, descending; ties by the lowest id. `count` is small. */
function largest(row: Float32Array, count: number): number[] {
  const ids: number[] = [];
  if (count === 0) return ids;
  for (let id = 0; id < row.length; id++) {
    if (ids.length === count && !(row[id] > row[ids[count - 1]])) continue;
    let at = ids.length;
    while (at > 0 && row[id] > row[ids[at - 1]]) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
