/** Which inputs of a row count; those of larger magnitude first, of equals the one with the lower index. */
export type InputChoice =
  /** So many of every run of `of` columns, of which the last may be shorter; default: of the whole row. */
  | { readonly count: number; readonly of?: number }
  /** The fewest whose magnitudes add up to this share of all. */
  | { readonly mass: number };

/** The row with all other inputs as 0: by definition, and slow. NaN counts as larger than anything. @param row f32 */
export function keptInputs(row: Float32Array, choice: InputChoice): Float32Array {
  const out = new Float32Array(row.length);
  const length = "mass" in choice ? row.length : (choice.of ?? row.length);
  const magnitudes = new Uint32Array(row.slice().buffer).map((bits) => bits & 0x7fffffff);
  for (let first = 0; first < row.length; first += length) {
    const places = Array.from({ length: Math.min(length, row.length - first) }, (_, i) => first + i);
    places.sort((a, b) => magnitudes[b] - magnitudes[a] || a - b);
    const count = "mass" in choice ? fewest(row, places, choice.mass) : choice.count;
    for (const i of places.slice(0, count)) out[i] = row[i];
  }
  return out;
}

function fewest(row: Float32Array, places: readonly number[], share: number): number {
  const magnitude = (i: number) => Math.abs(row[i]);
  const wanted = share * places.reduce((sum, i) => sum + magnitude(i), 0);
  // What is no number must show in the result.
  if (Number.isNaN(wanted)) return row.length;
  let sum = 0;
  let count = 0;
  while (count < places.length && sum < wanted) sum += magnitude(places[count++]);
  return count;
}
