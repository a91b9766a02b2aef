import { ProblemsError, Random, RarefyError } from "../core/index.js";
import { argmax, descending, largest } from "./logits.js";

/** How the next token is chosen. Whatever is left out does nothing. */
export interface SamplingOptions {
  /** Divides the logits; 0 (default) takes the most probable token. */
  temperature?: number;
  /** Keeps the k most probable tokens; 0 keeps all. */
  topK?: number;
  /** Keeps the fewest most probable tokens that together have at least this probability (arXiv 1904.09751). */
  topP?: number;
  /** Keeps tokens at least this fraction as probable as the most probable one (arXiv 2407.01082). */
  minP?: number;
  /** Divides positive and multiplies negative logits of tokens that occurred already (arXiv 1909.05858). 1 is off. */
  repetitionPenalty?: number;
  /** The same seed, model and prompt give the same tokens. Left out: a new one each time. */
  seed?: number;
}

interface LogitFilter {
  /** What values the setting may have, for messages. */
  expected: string;
  valid(setting: number): boolean;
  /**
   * Changes logits f32 [vocabSize] in place; −∞ drops a token. At least one stays.
   * @param occurred ids of the prompt and of what was generated
   */
  apply(logits: Float32Array, setting: number, occurred: Iterable<number>): void;
}

type FilterName = Exclude<keyof SamplingOptions, "seed">;

/** Every filter, in the order in which they are applied (that of Hugging Face transformers). */
export const logitFilters: Readonly<Record<FilterName, LogitFilter>> = {
  repetitionPenalty: {
    expected: "a number above 0",
    valid: (penalty) => penalty > 0 && penalty < Number.POSITIVE_INFINITY,
    apply(logits, penalty, occurred) {
      for (const id of new Set(occurred)) logits[id] *= logits[id] > 0 ? 1 / penalty : penalty;
    },
  },
  temperature: {
    expected: "a number of at least 0",
    valid: (temperature) => temperature >= 0 && temperature < Number.POSITIVE_INFINITY,
    apply(logits, temperature) {
      // Relative to the largest, so that a tiny temperature cannot give ∞ − ∞ later on.
      const top = largest(logits);
      for (let id = 0; id < logits.length; id++) {
        if (temperature > 0) logits[id] = (logits[id] - top) / temperature;
      }
      if (temperature === 0) keepOnly(logits, [argmax(logits)]);
    },
  },
  topK: {
    expected: "an integer of at least 0 (0 keeps all)",
    valid: (k) => Number.isSafeInteger(k) && k >= 0,
    apply(logits, k) {
      if (k === 0 || k >= logits.length) return;
      const kept: number[] = [];
      for (const id of descending(logits)) {
        kept.push(id);
        if (kept.length === k) break;
      }
      keepOnly(logits, kept);
    },
  },
  topP: {
    expected: "a number above 0 and at most 1",
    valid: (p) => p > 0 && p <= 1,
    apply(logits, p) {
      if (p === 1) return;
      const top = largest(logits);
      let total = 0;
      for (const logit of logits) total += Math.exp(logit - top);
      const kept: number[] = [];
      let mass = 0;
      for (const id of descending(logits)) {
        kept.push(id);
        mass += Math.exp(logits[id] - top);
        if (mass >= p * total) break;
      }
      keepOnly(logits, kept);
    },
  },
  minP: {
    expected: "a number from 0 to 1",
    valid: (p) => p >= 0 && p <= 1,
    apply(logits, p) {
      const lowest = largest(logits) + Math.log(p);
      for (let id = 0; id < logits.length; id++) if (logits[id] < lowest) logits[id] = Number.NEGATIVE_INFINITY;
    },
  },
};

const filterNames = Object.keys(logitFilters) as FilterName[];

function keepOnly(logits: Float32Array, ids: readonly number[]): void {
  const kept = ids.map((id) => logits[id]);
  logits.fill(Number.NEGATIVE_INFINITY);
  for (const [i, id] of ids.entries()) logits[id] = kept[i];
}

/** Draws an id with probability softmax(logits). @throws RarefyError when the logits hold a NaN or nothing but −∞. */
export function draw(logits: Float32Array, random: Random): number {
  const top = largest(logits);
  let total = 0;
  for (const logit of logits) total += Math.exp(logit - top);
  if (!(total > 0)) throw new RarefyError("the logits are no probabilities: the model gave NaN or only −∞");
  const target = random.uniform() * total;
  let mass = 0;
  let last = 0;
  for (let id = 0; id < logits.length; id++) {
    const weight = Math.exp(logits[id] - top);
    if (weight === 0) continue;
    mass += weight;
    last = id;
    if (mass > target) break;
  }
  return last;
}

/** Chooses tokens of one sequence. */
export class Sampler {
  readonly seed: number;
  /** Nothing but the largest logit decides, so that the others need not be read. */
  readonly greedy: boolean;
  readonly #random: Random;

  /** @throws ProblemsError listing every setting out of range. */
  constructor(readonly options: SamplingOptions = {}) {
    const problems = filterNames.flatMap((name) => {
      const setting = options[name];
      if (setting === undefined || (typeof setting === "number" && logitFilters[name].valid(setting))) return [];
      return [`${name} is ${setting}; expected ${logitFilters[name].expected}`];
    });
    if (problems.length > 0) throw new ProblemsError("These sampling options cannot be used:", problems);
    this.seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
    this.greedy = (options.temperature ?? 0) === 0 && (options.repetitionPenalty ?? 1) === 1;
    this.#random = new Random(this.seed);
  }

  /**
   * @param logits f32 [vocabSize]; left as they are
   * @param occurred ids of the prompt and of what was generated
   */
  pick(logits: Float32Array, occurred: Iterable<number>): number {
    return draw(this.#filtered(logits, occurred), this.#random);
  }

  /** The probabilities that `pick` draws from, f64 [vocabSize]. Arguments as there. */
  law(logits: Float32Array, occurred: Iterable<number>): Float64Array {
    const filtered = this.#filtered(logits, occurred);
    const top = largest(filtered);
    const weights = Float64Array.from(filtered, (logit) => Math.exp(logit - top));
    const total = weights.reduce((a, b) => a + b, 0);
    if (!(total > 0)) throw new RarefyError("the logits are no probabilities: the model gave NaN or only −∞");
    return weights.map((weight) => weight / total);
  }

  /** Draws an id with a probability proportional to its weight, which is not below 0; some weight is above. */
  draw(weights: Float64Array): number {
    let total = 0;
    for (let id = 0; id < weights.length; id++) total += weights[id];
    const target = this.uniform() * total;
    let mass = 0;
    let last = 0;
    for (let id = 0; id < weights.length; id++) {
      const weight = weights[id];
      if (weight === 0) continue;
      mass += weight;
      last = id;
      if (mass > target) break;
    }
    return last;
  }

  /** The next random number of the seed, from [0, 1). */
  uniform(): number {
    return this.#random.uniform();
  }

  #filtered(logits: Float32Array, occurred: Iterable<number>): Float32Array {
    const filtered = logits.slice();
    for (const name of filterNames) {
      const setting = name === "temperature" ? (this.options.temperature ?? 0) : this.options[name];
      if (setting !== undefined) logitFilters[name].apply(filtered, setting, occurred);
    }
    return filtered;
  }
}
