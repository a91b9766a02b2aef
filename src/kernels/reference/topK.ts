import type { TopK } from "../backend.js";

/** The k largest values, descending, NaN first; ties by the lowest id. O(n·log n): plain rather than fast. */
export function topK(values: Float32Array, k: number): TopK {
  const ids = Uint32Array.from(values.keys())
    .sort((a, b) => before(values[a], values[b]) - before(values[b], values[a]) || a - b)
    .slice(0, k);
  return { ids, values: Float32Array.from(ids, (id) => values[id]) };
}

/** −1 where a comes before b, else 0. */
const before = (a: number, b: number) => (a > b || (Number.isNaN(a) && !Number.isNaN(b)) ? -1 : 0);
