import { UsageError } from "../../core/index.js";
import type { AttentionMass, KvCodes } from "../../kernels/index.js";
import type { Model } from "../../model/index.js";
import { cacheBytes } from "../../model/internal.js";
import type { KvChoice } from "./index.js";
import type { MemoryOptions } from "./memoryOptions.js";
import { keptOf } from "./prunedModels.js";

/** What the cache of one sequence comes to. */
export interface CacheShape {
  readonly kv: KvChoice | undefined;
  /** Tokens that each layer holds, at most. */
  readonly slots: number;
  /** Most tokens of one pass where a policy throws away, or makes codes of groups. */
  readonly rows: number;
  readonly mass?: AttentionMass;
  readonly codes?: KvCodes;
}

/**
 * @param capacity tokens of the sequence at most
 * @throws UsageError for passes that are none, for a budget that renumbers beyond the model's positions, and for a dynamic
 * pattern with a policy that throws away
 */
export function cacheShape(model: Model, capacity: number, options: MemoryOptions): CacheShape {
  const { attention, passTokens } = options;
  const kv = keptOf(model, options);
  const { budget = capacity, mass, renumbers } = kv?.eviction ?? {};
  if (attention?.seek !== undefined && kv?.eviction !== undefined) {
    throw new UsageError(
      `${attention.text} decides by keys that stay where they are, and ${kv.text} throws some away; take a policy that keeps ` +
        "all, as int8, or a pattern that is known beforehand, as window",
    );
  }
  const { maxPositions } = model.config;
  // Renumbered texts may be endless: what is held and the next pass must fit into the positions that the model knows.
  const most = renumbers && capacity > maxPositions ? maxPositions - budget : Number.POSITIVE_INFINITY;
  const wanted = passTokens ?? Math.max(1, Math.min(128, Math.floor(budget / 4), most));
  if (!Number.isSafeInteger(wanted) || wanted < 1) throw new UsageError(`passes of ${wanted} tokens`);
  if (wanted > most) {
    throw new UsageError(
      `${kv?.text}: a budget of ${budget} and passes of ${wanted} tokens, and the model was made for ${maxPositions} ` +
        "positions; take a smaller budget",
    );
  }
  const rows = Math.min(wanted, capacity);
  const residual = kv?.codes?.residual;
  // All tokens of a pass come before any of them goes.
  const passes = kv?.eviction === undefined && residual === undefined ? capacity : rows;
  const codes = kv?.codes && {
    bits: kv.codes.bits,
    ...(residual !== undefined && { kivi: { residual, rows } }),
  };
  return { kv, slots: Math.min(capacity, budget + passes), rows, mass, codes };
}

/**
 * Bytes that the cache of a sequence takes at most, and what its attention pattern keeps of keys; pages are not asked for.
 * @throws UsageError as `cacheShape`
 */
export function mostCacheBytes(model: Model, capacity: number, options: Omit<MemoryOptions, "pages">): number {
  const { kv, ...shape } = cacheShape(model, capacity, options);
  const bytes = cacheBytes(model.config.spec, capacity, shape);
  using seeker = options.attention?.seek?.(model, capacity);
  // A cache that grows with what it holds is copied to one that is larger, while both are there.
  return (kv?.eviction?.trained ? 2 : 1) * bytes + (seeker?.mostBytes ?? 0);
}
