/**
 * σ_α(s): the first of the two shares that α-entmax gives to (s, 0) (Peters et al. 2019, arXiv 1905.05702), the p with
 * p^(α−1) − (1 − p)^(α−1) = (α − 1) · s. The logistic function at α = 1, clip((1 + s) / 2, 0, 1) at α = 2; it reaches 0 and 1 at
 * |s| = 1 / (α − 1), and the step function as α grows.
 * @param alpha at least 1
 */
export function alphaSigmoid(alpha: number, s: number): number {
  if (s < 0) return 1 - alphaSigmoid(alpha, -s);
  const power = alpha - 1;
  if (power * s >= 1) return 1;
  // The two powers lie too near to one another to be told apart.
  if (power < 1e-6) return 1 / (1 + Math.exp(-s));
  let [low, high] = [0.5, 1];
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (middle ** power - (1 - middle) ** power < power * s) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Where the logistic function is 1 in f32. */
const longestReach = 18;

/** σ_α at `entries` equal steps from 0 to where it is 1, and entries of a unit. */
export function alphaSigmoidTable(alpha: number, entries: number): { values: Float32Array; perUnit: number } {
  const reach = Math.min(longestReach, 1 / Math.max(1e-9, alpha - 1));
  const step = reach / (entries - 1);
  return { values: Float32Array.from({ length: entries }, (_, i) => alphaSigmoid(alpha, i * step)), perUnit: 1 / step };
}
