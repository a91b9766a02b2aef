/**
 * Moving factors s of input channels out of activations and into weights, exactly in real numbers:
 * W·x = (W·diag(s))·(diag(s)⁻¹·x). Whatever makes x (a norm's weight and bias, or the rows of a linear layer and its
 * bias) is divided by s, the columns of everything that reads x are multiplied.
 */

/** f32 [cols]: a norm's weight or a bias divided by the factors, channel by channel. */
export function divideChannels(values: Float32Array, factors: Float32Array): Float32Array {
  return values.map((value, c) => value / factors[c]);
}

/** f32 [rows, cols] with row r divided by factors[r]. */
export function divideRows(weight: Float32Array, cols: number, factors: Float32Array): Float32Array {
  return weight.map((w, i) => w / factors[Math.floor(i / cols)]);
}

/** f32 [rows, cols] with column c multiplied by factors[c]. */
export function multiplyColumns(weight: Float32Array, factors: Float32Array): Float32Array {
  return weight.map((w, i) => w * factors[i % factors.length]);
}

/** f32 [rows, cols] with column c divided by factors[c]. */
export function divideColumns(weight: Float32Array, factors: Float32Array): Float32Array {
  return weight.map((w, i) => w / factors[i % factors.length]);
}
