import type { ModelSpec } from "../../arch/index.js";
import type { JobOptions, Random } from "../../core/index.js";
import { addPair, combineAdapters, type LoraAdapter } from "../../io/index.js";
import { adaptationsOf } from "../../model/index.js";
import { parameterName } from "../models/parameters.js";
import type { Search } from "../search/contract.js";
import { minimise } from "../search/minimise.js";
import type { FloatArray, Values } from "../values.js";

/** How the weights of a combination are looked for. */
export interface LoraHubOptions extends JobOptions {
  /** One of `searches`. */
  search: Search;
  /** How often the loss may be asked, that of the model without adapters counted. */
  evaluations: number;
  /** Every weight lies in [−bound, bound]. */
  bound: number;
  /** What the mean of |w| is multiplied by and added to the loss. */
  penalty: number;
  random: Random;
}

/** The best combination that was found. */
export interface LoraHubResult {
  adapter: LoraAdapter;
  /** f64, one for each adapter. */
  weights: Float64Array;
  /** Of the model with the combination, without the penalty. */
  loss: number;
  /** Of the model as it is, where the search begins. */
  lossBefore: number;
}

/**
 * LoraHub (Huang et al. 2023, arXiv:2307.13269): the weights of several LoRA adapters, by which `combineAdapters` makes one of them, with
 * the smallest loss(w) + penalty·mean|w| on a few examples of a new task. No gradient is asked for. The search begins at no adapter at
 * all, and its result is never worse than that.
 * @param frozen all weights of the model, f32; not written to
 * @param lossOf of all weights of the model, in arrays that are not used again
 * @throws ProblemsError for adapters that do not add up or are for another model, NonFiniteError for a model without a loss
 */
export async function loraHub(
  spec: ModelSpec,
  frozen: Values,
  adapters: readonly LoraAdapter[],
  lossOf: (weights: Values) => Promise<number>,
  { search, bound, penalty, evaluations, random, ...job }: LoraHubOptions,
): Promise<LoraHubResult> {
  /** Without the penalty. */
  const losses = new Map<Float64Array, number>();
  const valueAt = async (weights: Float64Array) => {
    const loss = await lossOf(adapted(spec, frozen, combineAdapters(adapters, weights)));
    losses.set(weights, loss);
    return loss + penalty * (weights.reduce((sum, w) => sum + Math.abs(w), 0) / weights.length);
  };
  const start = new Float64Array(adapters.length);
  const { point } = await minimise(search, start, valueAt, { bound, random, evaluations, ...job });
  return {
    adapter: combineAdapters(adapters, point),
    weights: point,
    loss: losses.get(point)!,
    lossBefore: losses.get(start)!,
  };
}

/** All weights of a model, those of adapted matrices with their pairs. */
function adapted(spec: ModelSpec, frozen: Values, adapter: LoraAdapter): Values {
  const all = new Map<string, FloatArray>(frozen);
  for (const [{ weight }, adaptation] of adaptationsOf(spec, adapter)) {
    const name = parameterName(weight);
    if (adaptation.kind === "lora") all.set(name, addPair(frozen.get(name) as Float32Array, adaptation.pair));
  }
  return all;
}
