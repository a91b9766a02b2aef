/** Σ a[aAt + i] · b[bAt + i], with two running sums. */
export function dot(a: Float64Array, aAt: number, b: Float64Array, bAt: number, length: number): number {
  let even = 0;
  let odd = 0;
  let i = 0;
  for (; i + 1 < length; i += 2) {
    even += a[aAt + i] * b[bAt + i];
    odd += a[aAt + i + 1] * b[bAt + i + 1];
  }
  return i < length ? even + odd + a[aAt + i] * b[bAt + i] : even + odd;
}

/** (x, y) ← (cosine·x − sine·y, sine·x + cosine·y) for two runs of a, at p and q. */
export function rotate(a: Float64Array, p: number, q: number, length: number, cosine: number, sine: number): void {
  for (let i = 0; i < length; i++) {
    const x = a[p + i];
    const y = a[q + i];
    a[p + i] = cosine * x - sine * y;
    a[q + i] = sine * x + cosine * y;
  }
}
