import { findStep, type ModelSpec } from "../arch/index.js";
import { keptBy } from "../arch/internal.js";
import type { KvCacheSpec } from "../kernels/index.js";
import { kvCacheBytes } from "../kernels/internal.js";
import type { CacheOptions } from "./types.js";

/** What a cache of all blocks has room for. @param capacity positions */
export function cacheSpec(
  { blocks }: Pick<ModelSpec, "blocks">,
  capacity: number,
  { slots = capacity, mass, codes }: Omit<CacheOptions, "allowBeyondTraining"> = {},
): KvCacheSpec {
  const listed = typeof slots === "number" ? undefined : slots;
  const layers = blocks.map((block, layer) => {
    const kept = keptBy(findStep(block, "attend")!);
    return listed === undefined ? kept : { ...kept, slots: listed[layer] };
  });
  return { layers, slots: typeof slots === "number" ? slots : Math.max(...slots), mass, codes };
}

/** Bytes of such a cache, before it is made. */
export const cacheBytes = (...cache: Parameters<typeof cacheSpec>): number => kvCacheBytes(cacheSpec(...cache));
