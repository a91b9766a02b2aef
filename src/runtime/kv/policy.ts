import { UsageError } from "../../core/index.js";
import type { AttentionMass } from "../../kernels/index.js";
import { oneOf, type ParameterRules, type ParameterValues } from "../parameters.js";

/** What one key head of one layer holds, oldest first. */
export interface Held {
  /** Position of each token that is held, ascending. */
  readonly positions: Int32Array;
  /** What attention gave each since it came; only for policies with `mass`. */
  readonly mass: Float32Array;
  /** Whether the model itself has dropped each; only for policies that are `trained`. */
  readonly dropped: readonly boolean[];
  /** Most that may stay. */
  readonly budget: number;
  /** Tokens that the sequence has run: the newest is at `run − 1`. */
  readonly run: number;
}

/** A KV policy with its parameters: how much of a text is held, and what goes when it is more. */
export interface KvEviction {
  /** Tokens that each key head holds after a pass, at most. */
  readonly budget: number;
  /** Whether, and how, what attention gives the tokens is added up. */
  readonly mass?: AttentionMass;
  /**
   * Whether tokens count as following one another in spite of what went between them: positions then never exceed the budget
   * and texts may be endless. Else they keep the positions at which they were run.
   */
  readonly renumbers?: boolean;
  /**
   * Throws away once a prompt has run, and nothing while tokens are generated: its last `window` tokens run as a pass of their
   * own, and `mass` is what they alone gave. `budget` is then what a layer keeps of what it holds.
   */
  readonly prompt?: { readonly window: number; budget(layer: number, layers: number, held: number): number };
  /** Throws away, in each layer, what the model was trained to drop, and nothing else. */
  readonly trained?: boolean;
  /** Indices into `held` of exactly as many tokens as are too many. Called only when there are too many. */
  evict(held: Held): Iterable<number>;
}

/** In how many bits keys and values are held; see `KvCodes`. */
export interface KvBits {
  readonly bits: 2 | 4 | 8;
  /** Newest tokens that stay f32, with the groups of KIVI; left out: none, and a scale for each key and value. */
  readonly residual?: number;
}

/** Which tokens a cache keeps once it is full. */
export interface KvPolicy<R extends ParameterRules = ParameterRules> {
  readonly summary: string;
  readonly parameters: R;
  /** Nothing for a policy that keeps everything. @throws UsageError for parameters that do not fit one another */
  make(values: ParameterValues<R>): KvEviction | undefined;
  /** In how many bits it holds them; nothing for f32. */
  codes?(values: ParameterValues<R>): KvBits | undefined;
}

/** Checks a policy's types where it is declared. */
export const policy = <const R extends ParameterRules>(entry: KvPolicy<R>): KvPolicy => entry as unknown as KvPolicy;

/** Indices of the oldest that are too many, but for the first `spared`. */
export function* oldest({ positions, budget }: Held, spared = 0): Iterable<number> {
  for (let i = spared; i < spared + positions.length - budget; i++) yield i;
}

/** A policy that throws away, with a choice of bits for what it keeps. */
export function inBits(entry: KvPolicy): KvPolicy {
  const bits = oneOf("bits of a number of what is kept; 32 is f32", "32", "8", "4");
  return policy({
    ...entry,
    parameters: { ...entry.parameters, bits },
    make(values) {
      const eviction = entry.make(values);
      if (eviction?.renumbers && String(values.bits) !== "32") {
        throw new UsageError(`bits=${values.bits} with positions=slots: keys would be coded anew with every token`);
      }
      return eviction;
    },
    codes: ({ bits }) => (String(bits) === "32" ? undefined : { bits: Number(bits) as 4 | 8 }),
  });
}
