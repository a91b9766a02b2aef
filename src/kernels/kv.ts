import type { RopeTable } from "./handles.js";
import { codedWords, type KvCodes } from "./kvCodes.js";

/** What one layer keeps of every token. */
export interface KvLayer {
  /** Key heads; each has a key and a value. */
  readonly heads: number;
  /** Width of a key, a multiple of 4. */
  readonly key: number;
  /** Width of a value, a multiple of 4; other than that of a key in latent attention. */
  readonly value: number;
  /** A value is the first `value` columns of its key, which are kept once: latent attention (arXiv 2405.04434). */
  readonly valueInKey?: true;
  /** Tokens that this layer has room for; left out: `KvCacheSpec.slots`. */
  readonly slots?: number;
}

/** Columns that are kept of a value beside its key. */
export const keptValue = ({ value, valueInKey }: KvLayer): number => (valueInKey ? 0 : value);

/**
 * What `attention` leaves behind in a cache: a slot of a key head collects the softmax probabilities it was given, of every
 * query row the sum, or the maximum, over the query heads that share the key head.
 */
export type AttentionMass = "sum" | "max";

/** What a cache of keys and values has room for, by layer. */
export interface KvCacheSpec {
  readonly layers: readonly KvLayer[];
  /** Most tokens that each layer holds at once, where it does not say so itself. */
  readonly slots: number;
  readonly mass?: AttentionMass;
  /** How keys and values are kept in fewer bits; left out: as f32. */
  readonly codes?: KvCodes;
}

/** Most tokens that a layer of a cache holds at once. */
export const slotsOf = ({ layers, slots }: KvCacheSpec, layer: number): number => layers[layer].slots ?? slots;

/** Of numbers that are given for all layers, or for each, that of one. */
export const countOf = (counts: number | readonly number[], layer: number): number =>
  typeof counts === "number" ? counts : counts[layer];

/**
 * Keys and values of one sequence, owned by a backend. A slot holds what one token left in a layer. Where nothing is ever
 * thrown away a token's slot is its position; a policy that throws away puts new tokens behind what it holds.
 */
export interface KvCache extends Disposable {
  readonly spec: KvCacheSpec;
  readonly byteLength: number;
}

/**
 * Moves within one layer, each of one key head: key, value and mass go from a slot to another one. They happen at once: no
 * slot is where one begins and another ends, and no two end in the same one.
 */
export interface KvMoves {
  readonly heads: Uint32Array;
  readonly from: Uint32Array;
  readonly to: Uint32Array;
  /** Turns each key that moves by so many positions, forward or back: it then counts as one of that much later a token. */
  readonly turn?: { readonly table: RopeTable; readonly by: Int32Array };
}

/** Bytes of keys, values and mass. */
export function kvCacheBytes({ mass, codes, ...spec }: KvCacheSpec): number {
  const words = spec.layers.reduce((sum, kept, layer) => {
    const slots = slotsOf(spec, layer);
    const entry =
      codes === undefined
        ? slots * (kept.key + keptValue(kept))
        : codedWords(codes, "key", kept.key, slots).all + codedWords(codes, "value", keptValue(kept), slots).all;
    return sum + kept.heads * (entry + (mass === undefined ? 0 : slots));
  }, 0);
  return 4 * words;
}
