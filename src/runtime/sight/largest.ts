/**
 * Indices of the `k` largest numbers, of equal ones the first, ascending; NaN is the least. By selection, so that time grows
 * with the length.
 */
export function largest(values: Float32Array, k: number): number[] {
  if (k >= values.length) return Array.from(values.keys());
  if (k <= 0) return [];
  const numbers = values.map((v) => (Number.isNaN(v) ? Number.NEGATIVE_INFINITY : v));
  const least = selected(numbers.slice(), values.length - k);
  let equal = k;
  for (const v of numbers) if (v > least) equal--;
  const indices: number[] = [];
  for (const [i, v] of numbers.entries()) {
    if (v > least) indices.push(i);
    else if (v === least && equal > 0) {
      indices.push(i);
      equal--;
    }
  }
  return indices;
}

/** What stands at `n` once the numbers, which are moved about, are in order (Hoare's quickselect). */
function selected(values: Float32Array, n: number): number {
  let [low, high] = [0, values.length - 1];
  while (low < high) {
    const pivot = values[(low + high) >> 1];
    let [i, j] = [low, high];
    while (i <= j) {
      while (values[i] < pivot) i++;
      while (values[j] > pivot) j--;
      if (i > j) break;
      const v = values[i];
      values[i++] = values[j];
      values[j--] = v;
    }
    if (n <= j) high = j;
    else if (n >= i) low = i;
    else break;
  }
  return values[n];
}
