import type { TopK } from "../backend.js";

/** The k largest values, descending; ties by the lowest id. O(n·log n): plain rather than fast. */
export function topK(values: Float32Array, k: number): TopK {
  const ids = Uint32Array.from(values.keys())
    .sort((a, b) => values[b] - values[a] || a - b)
    .slice(0, k);
  return { ids, values: Float32Array.from(ids, (id) => values[id]) };
}
