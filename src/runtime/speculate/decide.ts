import type { Activation } from "../../kernels/index.js";
import { firstNonFiniteOf, type Model } from "../../model/index.js";
import type { ChosenToken } from "../chosenToken.js";
import { logProbability } from "../logits.js";
import type { Sampler } from "../samplers.js";
import { accept, acceptGreedy } from "./accept.js";
import type { Proposal } from "./draft.js";

/**
 * Which of the tokens that were proposed stay, and the one after them.
 * @param logits f32 [1 + proposed, logitCols] of the token before them and of them; released
 * @param occurred tokens before those proposed
 * @param explain what to throw where the logits are not finite
 */
export async function decide(
  model: Model,
  logits: Activation,
  { ids, laws }: Pick<Proposal, "ids" | "laws">,
  occurred: readonly number[],
  sampler: Sampler,
  { logprobs, explain }: { logprobs: boolean; explain: () => Promise<Error> },
): Promise<{ accepted: number; decided: ChosenToken[] }> {
  const { backend, config } = model;
  try {
    if (sampler.greedy && !logprobs) {
      const tops = await backend.topK(logits, 1);
      if (tops.some(({ values }) => !Number.isFinite(values[0]))) throw await explain();
      const { accepted, next } = acceptGreedy(
        ids,
        tops.map((top) => top.ids[0]),
      );
      return { accepted, decided: [...ids.slice(0, accepted), next].map((id): ChosenToken => ({ id })) };
    }
    const values = await backend.read(logits);
    if (firstNonFiniteOf(values) >= 0) throw await explain();
    const row = (i: number) => values.subarray(i * logits.cols, i * logits.cols + config.vocabSize);
    const { accepted, next } = accept(
      ids,
      (i) => laws?.[i],
      (i) => sampler.law(row(i), [...occurred, ...ids.slice(0, i)]),
      () => sampler.uniform(),
      (weights) => sampler.draw(weights),
    );
    const decided = [...ids.slice(0, accepted), next].map(
      (id, i): ChosenToken => (logprobs ? { id, logprob: logProbability(row(i), id) } : { id }),
    );
    return { accepted, decided };
  } finally {
    backend.release(logits);
  }
}
