import type { Model } from "../../model/index.js";
import type { Sampler } from "../samplers.js";
import { Sequence } from "../sequence.js";
import type { Draft, Drafter, Proposal } from "./draft.js";
import { pickFrom } from "./pickFrom.js";

/**
 * A smaller model of the same vocabulary proposes (Leviathan et al., 2211.17192). It must give its tokens the same ids as
 * the target: nothing here can check that.
 */
export const modelDraft = (model: Model, text = "model"): Draft => ({
  text,
  open: (target, sampler) => new ModelDrafter(model, target, sampler),
});

class ModelDrafter implements Drafter {
  readonly #sequence: Sequence;

  constructor(
    model: Model,
    readonly target: Sequence,
    readonly sampler: Sampler,
  ) {
    this.#sequence = new Sequence(model, Math.min(target.capacity + 1, model.config.maxPositions));
  }

  propose(last: number, most: number): Promise<Proposal> {
    const { tokens, model } = this.target;
    return proposeFrom(this.#sequence, [...tokens, last], most, this.sampler, model.config.vocabSize);
  }

  [Symbol.dispose](): void {
    this.#sequence[Symbol.dispose]();
  }
}

/**
 * What the model of a sequence would write after a text.
 * @param most tokens at most
 * @param vocabSize of the target
 */
export async function proposeFrom(
  sequence: Sequence,
  context: readonly number[],
  most: number,
  sampler: Sampler,
  vocabSize: number,
): Promise<Proposal> {
  const { model, capacity } = sequence;
  // The text may be longer than the draft's positions, and have tokens that only the target knows.
  const count = Math.min(most, capacity - context.length + 1);
  if (count < 1 || context.some((id) => id >= model.config.vocabSize)) return { ids: [], laws: [] };
  const ids: number[] = [];
  const laws: Float64Array[] = [];
  let waiting = sequence.reuse(Uint32Array.from(context));
  while (ids.length < count) {
    const logits = await sequence.run(waiting);
    const { id, law } = await pickFrom(model, logits, sampler, [...context, ...ids]);
    // What the target has no token for cannot be verified.
    if (id >= vocabSize) break;
    ids.push(id);
    if (law !== undefined) laws.push(law);
    waiting = Uint32Array.of(id);
  }
  return { ids, laws: sampler.greedy ? undefined : laws };
}
