import { UsageError } from "../core/index.js";

/**
 * Fewer key and value heads: each new head is the mean of a run of consecutive old ones (Ainslie et al. 2023,
 * arXiv:2305.13245). From as many as query heads this makes grouped-query attention, down to one multi-query attention.
 * Query and output projections stay; query head h then reads head ⌊h · groups / queryHeads⌋. Means commute with rotary
 * embedding, but not with norms of single heads.
 * @param values f32 [heads * headDim, cols] of k_proj or v_proj, or [heads * headDim] of their bias
 * @returns f32 [groups * headDim, cols]
 * @throws UsageError when the heads do not divide into the groups
 */
export function poolHeads(values: Float32Array, heads: number, groups: number): Float32Array {
  if (groups < 1 || heads % groups !== 0 || values.length % heads !== 0) {
    throw new UsageError(`${heads} heads in ${values.length} values do not divide into ${groups} groups`);
  }
  const headSize = values.length / heads;
  const perGroup = heads / groups;
  return Float32Array.from({ length: groups * headSize }, (_, i) => {
    const first = Math.floor(i / headSize) * perGroup * headSize + (i % headSize);
    let sum = values[first];
    for (let h = 1; h < perGroup; h++) sum += values[first + h * headSize];
    return sum / perGroup;
  });
}
