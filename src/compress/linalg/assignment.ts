/**
 * The assignment of columns to rows, each used once, with the largest sum of gains (Jonker and Volgenant 1987: shortest
 * augmenting paths with prices, O(n³)).
 * @param gains f64 [n, n]
 * @returns the column of every row
 */
export function assignRows(gains: Float64Array, n: number): Uint32Array {
  const rowPrices = new Float64Array(n);
  const colPrices = new Float64Array(n);
  const rowOf = new Int32Array(n).fill(-1);
  for (let root = 0; root < n; root++) {
    const shortest = new Float64Array(n).fill(Number.POSITIVE_INFINITY);
    const before = new Int32Array(n).fill(-1);
    const done = new Uint8Array(n);
    let row = root;
    let last = -1;
    let end = -1;
    while (end < 0) {
      let least = Number.POSITIVE_INFINITY;
      let next = -1;
      for (let col = 0; col < n; col++) {
        if (done[col] === 1) continue;
        const reached = last < 0 ? 0 : shortest[last];
        const cost = reached - gains[row * n + col] - rowPrices[row] - colPrices[col];
        if (cost < shortest[col]) {
          shortest[col] = cost;
          before[col] = last;
        }
        if (shortest[col] < least) {
          least = shortest[col];
          next = col;
        }
      }
      done[next] = 1;
      last = next;
      if (rowOf[next] < 0) end = next;
      else row = rowOf[next];
    }
    const length = shortest[end];
    for (let col = 0; col < n; col++) {
      if (done[col] === 0) continue;
      const gap = length - shortest[col];
      colPrices[col] -= gap;
      if (rowOf[col] >= 0) rowPrices[rowOf[col]] += gap;
    }
    rowPrices[root] += length;
    // The path turns around: every column on it gets the row of the column before.
    for (let col = end; col >= 0; col = before[col]) rowOf[col] = before[col] < 0 ? root : rowOf[before[col]];
  }
  const columns = new Uint32Array(n);
  for (const [col, row] of rowOf.entries()) columns[row] = col;
  return columns;
}
