/** The middle value, or the mean of the two in the middle. NaN of none. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** Mean and sample standard deviation of a few repeats. */
export function meanAndDeviation(values: readonly number[]): { mean: number; deviation: number } {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
  if (values.length < 2) return { mean, deviation: 0 };
  const squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  return { mean, deviation: Math.sqrt(squares / (values.length - 1)) };
}

/** "12.34 ± 0.56". */
export function spread(values: readonly number[], places: number): string {
  if (values.length === 0) return "–";
  const { mean, deviation } = meanAndDeviation(values);
  return values.length === 1 ? mean.toFixed(places) : `${mean.toFixed(places)} ± ${deviation.toFixed(places)}`;
}
