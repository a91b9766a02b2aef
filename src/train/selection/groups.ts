import type { FloatArray } from "../values.js";

/**
 * Keeps the `keep` largest magnitudes of every `group` consecutive entries, by counting how many of its group are larger:
 * no sort, no branch that depends on order. Among equals the first stay.
 * @param weight length a multiple of `group`
 */
export function keepLargestOfGroups(weight: FloatArray, keep: number, group: number, mask: Uint8Array): void {
  const magnitudes = new Float64Array(group);
  for (let start = 0; start < weight.length; start += group) {
    for (let i = 0; i < group; i++) magnitudes[i] = Math.abs(weight[start + i]);
    for (let i = 0; i < group; i++) {
      const m = magnitudes[i];
      let larger = 0;
      for (let j = 0; j < i; j++) larger += magnitudes[j] >= m ? 1 : 0;
      for (let j = i + 1; j < group; j++) larger += magnitudes[j] > m ? 1 : 0;
      mask[start + i] = larger < keep ? 1 : 0;
    }
  }
}
