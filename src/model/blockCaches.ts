import type { ModelConfig } from "../arch/index.js";
import type { Backend, KvCache, KvCacheSpec } from "../kernels/index.js";

/**
 * The keys and values of a model whose blocks differ in their number of key heads: one cache of the backend for each
 * number that occurs. `spec` gives the widest.
 */
export class BlockCaches implements KvCache {
  readonly spec: KvCacheSpec;
  readonly #caches = new Map<number, KvCache>();
  /** Where each layer's keys lie. */
  readonly #places: { cache: KvCache; layer: number }[];

  constructor(backend: Backend, { blocks, headDim }: Pick<ModelConfig, "blocks" | "headDim">, capacity: number) {
    const widest = Math.max(...blocks.map((block) => block.kvHeads));
    this.spec = { layers: blocks.length, kvHeads: widest, headDim, capacity };
    for (const kvHeads of new Set(blocks.map((block) => block.kvHeads))) {
      const layers = blocks.filter((block) => block.kvHeads === kvHeads).length;
      this.#caches.set(kvHeads, backend.createKvCache({ layers, kvHeads, headDim, capacity }));
    }
    this.#places = blocks.map(({ kvHeads }, at) => ({
      cache: this.#caches.get(kvHeads)!,
      layer: blocks.slice(0, at).filter((before) => before.kvHeads === kvHeads).length,
    }));
  }

  get byteLength(): number {
    let total = 0;
    for (const cache of this.#caches.values()) total += cache.byteLength;
    return total;
  }

  of(layer: number): { cache: KvCache; layer: number } {
    return this.#places[layer];
  }

  [Symbol.dispose](): void {
    for (const cache of this.#caches.values()) cache[Symbol.dispose]();
  }
}
