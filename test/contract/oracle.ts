import type { ActivationFunction } from "../../src/core/index.js";
import type { RopeLayout } from "../../src/kernels/index.js";
import type { Expected, Tolerances } from "./harness.js";

/**
 * The operations of `Backend` in f64 over plain arrays, written without looking at any backend. Each returns the values
 * and how far an f32 implementation may be from them.
 */

const tiny = 1e-6;

export interface LinearCase {
  /** f32 [rows of x, cols] */
  x: Float32Array;
  /** f32 [outputs, cols], all parts */
  w: Float32Array;
  cols: number;
  /** rows of each part */
  partRows: readonly number[];
  bias?: Float32Array;
  /** What `out` holds when it is accumulated into, [rows of x, outputs]. */
  previous?: Float32Array;
  thresholds?: readonly number[];
  sparseFromRow?: number;
}

export function linear(c: LinearCase, tolerance: Tolerances["linear"]["f32"] & { int8Rows?: boolean }): Expected {
  // Read once: every case has a shape of its own, and looking up its fields in the inner loop took half of the time.
  const { x, w, cols, bias, previous } = c;
  const { relative, int8Activations, int8Rows } = tolerance;
  const n = x.length / cols;
  const outputs = c.partRows.reduce((a, b) => a + b, 0);
  const values = new Float64Array(n * outputs);
  const bounds = new Float64Array(n * outputs);
  // With one scale for the whole row, the largest input below the outliers decides.
  const groupInputs = int8Rows ? cols : 32;
  const outlier = int8Rows ? 6 : Number.POSITIVE_INFINITY;
  for (let r = 0; r < n; r++) {
    let j = 0;
    for (const [p, rows] of c.partRows.entries()) {
      const threshold = c.thresholds && r >= (c.sparseFromRow ?? 0) ? Math.fround(c.thresholds[p]) : -1;
      for (const last = j + rows; j < last; j++) {
        let sum = 0;
        let absolute = 0;
        let rounding = 0;
        for (let group = 0; group < cols; group += groupInputs) {
          let largest = 0;
          let weightSum = 0;
          for (let i = group, end = Math.min(group + groupInputs, cols); i < end; i++) {
            const input = x[r * cols + i];
            const size = Math.abs(input);
            if (size <= threshold) continue;
            const weight = w[j * cols + i];
            sum += weight * input;
            absolute += Math.abs(weight * input);
            if (size >= outlier) continue;
            if (size > largest) largest = size;
            weightSum += Math.abs(weight);
          }
          // An input is off by at most half a step of max|x|/127; 1.001 covers the f32 division.
          if (int8Activations) rounding += ((1.001 * largest) / 254) * weightSum;
        }
        const extra = (bias?.[j] ?? 0) + (previous?.[r * outputs + j] ?? 0);
        values[r * outputs + j] = sum + extra;
        bounds[r * outputs + j] = relative * (absolute + Math.abs(extra)) + rounding + tiny;
      }
    }
  }
  return { values, bounds };
}

/** Inputs skipped and bytes read by a one-row sparse product, from the definition at `BackendCounters`. */
export function sparseCounts(c: LinearCase, bitsPerCode: number, scaleBytesPerRow: number) {
  const counts = { weightBytesRead: 0, inputs: 0, inputsSkipped: 0, kvBytesRead: 0 };
  for (const [p, rows] of c.partRows.entries()) {
    const paddedRows = Math.ceil(rows / 32) * 32;
    const kept = [...c.x.keys()].filter((i) => Math.abs(c.x[i]) > Math.fround(c.thresholds![p]));
    const groups = new Set(kept.map((i) => i >> 5)).size;
    counts.inputs += c.cols;
    counts.inputsSkipped += c.cols - kept.length;
    counts.weightBytesRead += kept.length * ((paddedRows * bitsPerCode) / 8) + groups * paddedRows * scaleBytesPerRow;
  }
  return counts;
}

export interface AttentionCase {
  /** f32 [rows, queryHeads * headDim] */
  q: Float32Array;
  /** f32 [positions, kvHeads * headDim] each: the whole history */
  keys: Float32Array;
  values: Float32Array;
  queryHeads: number;
  kvHeads: number;
  headDim: number;
  scale: number;
  start: number;
  window?: number;
  softcap?: number;
}

export function attention(c: AttentionCase, tolerance: number): Expected {
  const { start, window = Number.POSITIVE_INFINITY } = c;
  const see = (row: number, _head: number, slot: number) => slot <= start + row && slot > start + row - window;
  const slots = start + c.q.length / (c.queryHeads * c.headDim);
  const width = c.kvHeads * c.headDim;
  return seenAttention(
    {
      ...c,
      keys: c.keys.subarray(0, slots * width),
      values: c.values.subarray(0, slots * width),
      heads: c.kvHeads,
      key: c.headDim,
      value: c.headDim,
      see,
    },
    tolerance,
  );
}

/** Attention of rows that see any slots. */
export interface SeenCase {
  /** f32 [rows, queryHeads * key] */
  q: Float32Array;
  /** f32 [slots, heads * key] */
  keys: Float32Array;
  /** f32 [slots, heads * value] */
  values: Float32Array;
  queryHeads: number;
  heads: number;
  key: number;
  value: number;
  scale: number;
  see(row: number, head: number, slot: number): boolean;
  /** [queryHeads]: a score without a value. */
  sinks?: ArrayLike<number>;
  /** Scores are softcap · tanh(score / softcap). */
  softcap?: number;
  /** By how much keys and values may be off, each as it is laid out. */
  off?: { readonly keys: Float32Array; readonly values: Float32Array };
}

/** What the slots that one row and head sees are given by the softmax, and how large and how far off their scores are. */
function shares(c: Omit<SeenCase, "values" | "value">, row: number, head: number) {
  const { q, keys, heads, key, scale, softcap } = c;
  const offKeys = c.off?.keys;
  const group = Math.floor((head * heads) / c.queryHeads);
  const queryAt = (row * c.queryHeads + head) * key;
  const slots: number[] = [];
  const scores: number[] = [];
  let size = 0;
  let off = 0;
  for (let slot = 0; slot < keys.length / (heads * key); slot++) {
    if (!c.see(row, head, slot)) continue;
    const keyAt = (slot * heads + group) * key;
    let score = 0;
    let terms = 0;
    let wrong = 0;
    for (let i = 0; i < key; i++) {
      const term = q[queryAt + i] * keys[keyAt + i] * scale;
      score += term;
      terms += Math.abs(term);
      if (offKeys) wrong += Math.abs(q[queryAt + i] * offKeys[keyAt + i] * scale);
    }
    slots.push(slot);
    scores.push(softcap === undefined ? score : softcap * Math.tanh(score / softcap));
    size = Math.max(size, terms);
    off = Math.max(off, wrong);
  }
  const sink = c.sinks?.[head] ?? Number.NEGATIVE_INFINITY;
  const top = scores.reduce((most, score) => Math.max(most, score), sink);
  const exponentials = scores.map((score) => Math.exp(score - top));
  const total = exponentials.reduce((sum, e) => sum + e, Math.exp(sink - top));
  return { group, slots, shares: exponentials.map((e) => e / total), size, off };
}

export function seenAttention(c: SeenCase, tolerance: number): Expected {
  const { heads, value, queryHeads } = c;
  const cached = c.values;
  const offValues = c.off?.values;
  const rows = c.q.length / (queryHeads * c.key);
  const values = new Float64Array(rows * queryHeads * value);
  const bounds = new Float64Array(values.length).fill(tiny);
  for (let row = 0; row < rows; row++) {
    for (let head = 0; head < queryHeads; head++) {
      const seen = shares(c, row, head);
      // Scores that are off by δ at most give shares that are off by a factor of e^2δ at most.
      const shareOff = Math.expm1(2 * seen.off);
      for (let i = 0; i < value; i++) {
        const at = (row * queryHeads + head) * value + i;
        let sum = 0;
        let off = 0;
        let largest = 0;
        for (let s = 0; s < seen.slots.length; s++) {
          const from = (seen.slots[s] * heads + seen.group) * value + i;
          sum += seen.shares[s] * cached[from];
          if (offValues) off += seen.shares[s] * offValues[from];
          largest = Math.max(largest, Math.abs(cached[from]));
        }
        values[at] = sum;
        bounds[at] += off + (tolerance * (1 + seen.size) + shareOff) * largest;
      }
    }
  }
  return { values, bounds };
}

/** Adds what slots are given to `mass` f64 [heads, slots]. */
export function addMass(mass: Float64Array, c: Omit<SeenCase, "values" | "value">, join: "sum" | "max"): void {
  const rows = c.q.length / (c.queryHeads * c.key);
  const slots = mass.length / c.heads;
  for (let row = 0; row < rows; row++) {
    const given = new Float64Array(mass.length);
    for (let head = 0; head < c.queryHeads; head++) {
      const seen = shares(c, row, head);
      for (const [s, share] of seen.shares.entries()) {
        const at = seen.group * slots + seen.slots[s];
        given[at] = join === "sum" ? given[at] + share : Math.max(given[at], share);
      }
    }
    for (const [at, share] of given.entries()) mass[at] += share;
  }
}

export function rmsNorm(x: Float32Array, weight: Float32Array, epsilon: number, tolerance: number): Expected {
  const width = weight.length;
  const values = new Float64Array(x.length);
  for (let run = 0; run < x.length; run += width) {
    let squares = 0;
    for (let i = 0; i < width; i++) squares += x[run + i] ** 2;
    const rms = Math.sqrt(squares / width + epsilon);
    for (let i = 0; i < width; i++) values[run + i] = (x[run + i] / rms) * weight[i];
  }
  return { values, bounds: values.map((v) => tolerance * Math.abs(v) + tiny) };
}

export function layerNorm(
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array | undefined,
  epsilon: number,
  tolerance: number,
): Expected {
  const width = weight.length;
  const values = new Float64Array(x.length);
  const bounds = new Float64Array(x.length);
  for (let run = 0; run < x.length; run += width) {
    const row = Float64Array.from(x.subarray(run, run + width));
    const mean = row.reduce((sum, v) => sum + v, 0) / width;
    const deviation = Math.sqrt(row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / width + epsilon);
    const largest = row.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    for (let i = 0; i < width; i++) {
      values[run + i] = ((row[i] - mean) / deviation) * weight[i] + (bias?.[i] ?? 0);
      // The mean is taken away from numbers of its size.
      bounds[run + i] = tolerance * (Math.abs(values[run + i]) + Math.abs((largest / deviation) * weight[i])) + tiny;
    }
  }
  return { values, bounds };
}

/** Angles from their definition: position · theta^(−2i/headDim). */
export function rope(
  x: Float32Array,
  cols: number,
  { headDim, first, width, pairs }: RopeLayout,
  theta: number,
  start: number,
  tolerance: number,
): Expected {
  const values = Float64Array.from(x);
  const bounds = new Float64Array(x.length);
  const half = width / 2;
  for (let k = 0; k < x.length; k++) {
    const position = start + Math.floor(k / cols);
    const i = ((k % cols) % headDim) - first;
    if (i < 0 || i >= width) continue;
    const leads = pairs === "halves" ? i < half : i % 2 === 0;
    const apart = pairs === "halves" ? half : 1;
    const other = x[leads ? k + apart : k - apart];
    const angle = position * theta ** ((-2 * (pairs === "halves" ? i % half : Math.floor(i / 2))) / width);
    values[k] = x[k] * Math.cos(angle) + (leads ? -other : other) * Math.sin(angle);
    bounds[k] = tolerance * (Math.abs(x[k]) + Math.abs(other)) + 1e-12;
  }
  return { values, bounds };
}

/** f32 [positions, headDim / 2] each. */
export function ropeTable(positions: number, headDim: number, theta: number) {
  const cos = new Float32Array((positions * headDim) / 2);
  const sin = new Float32Array((positions * headDim) / 2);
  for (let p = 0; p < positions; p++) {
    for (let i = 0; i < headDim / 2; i++) {
      const angle = p * theta ** ((-2 * i) / headDim);
      cos[(p * headDim) / 2 + i] = Math.cos(angle);
      sin[(p * headDim) / 2 + i] = Math.sin(angle);
    }
  }
  return { cos, sin };
}

/** erf by its Taylor series (|x| < 3) and its continued fraction, to about 1e-15. */
function erf(x: number): number {
  if (x < 0) return -erf(-x);
  if (x < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = 0;
  for (let n = 60; n >= 1; n--) fraction = n / 2 / (x + fraction);
  return 1 - Math.exp(-x * x) / Math.sqrt(Math.PI) / (x + fraction);
}

export const activations: Readonly<Record<ActivationFunction, (x: number) => number>> = {
  silu: (x) => x * (x < 0 ? Math.exp(x) / (1 + Math.exp(x)) : 1 / (1 + Math.exp(-x))),
  relu: (x) => Math.max(x, 0),
  relu2: (x) => (x > 0 ? x * x : 0),
  gelu: (x) => (x * (1 + erf(x / Math.SQRT2))) / 2,
  geluTanh: (x) => (x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x)))) / 2,
};

export function gated(
  gate: Float32Array,
  up: Float32Array,
  f: ActivationFunction,
  threshold: number,
  tolerance: number,
) {
  const values = new Float64Array(gate.length);
  const bounds = new Float64Array(gate.length);
  for (let i = 0; i < gate.length; i++) {
    const activated = activations[f](gate[i]);
    values[i] = Math.abs(activated) < threshold ? 0 : activated * up[i];
    // The last term: erf and tanh are approximated with an absolute error.
    bounds[i] = tolerance * Math.abs(activated * up[i]) + tiny * Math.abs(gate[i] * up[i]) + 1e-30;
  }
  return { values, bounds };
}
