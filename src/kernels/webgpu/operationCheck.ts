import { type ActivationFunction, activationFunctions, DeviceError, Random } from "../../core/index.js";
import type { Backend } from "../backend.js";
import { wholeHeads } from "../handles.js";
import { tolerance } from "./testProduct.js";

/**
 * Runs every operation but the products on small known cases.
 * @throws DeviceError naming the operations that this device gets wrong
 */
export async function checkOperations(b: Backend): Promise<void> {
  const random = new Random(2);
  const numbers = (count: number) => Float32Array.from({ length: count }, () => random.normal());
  const wrong: string[] = [];
  const compare = (name: string, actual: ArrayLike<number>, expected: ArrayLike<number>) => {
    const at = Array.from(expected).findIndex((e, i) => !(Math.abs(actual[i] - e) <= tolerance * (1 + Math.abs(e))));
    if (at >= 0) wrong.push(`${name} gave ${actual[at]} for ${expected[at]}`);
  };
  const upload = (rows: number, values: Float32Array) => {
    const activation = b.allocate(rows, values.length / rows);
    b.write(activation, values);
    return activation;
  };

  const [rows, cols] = [3, 320];
  const [a, c] = [numbers(rows * cols), numbers(rows * cols)];
  const [x, y, out] = [upload(rows, a), upload(rows, c), b.allocate(rows, cols)];
  const fresh = async (run: () => void) => {
    b.write(out, a);
    run();
    return b.read(out);
  };

  compare(
    "add",
    await fresh(() => b.add(out, y)),
    a.map((v, i) => v + c[i]),
  );
  for (const f of Object.keys(activationFunctions) as ActivationFunction[]) {
    const expected = a.map((v, i) => activationFunctions[f](v) * c[i]);
    compare(`gatedActivation ${f}`, await fresh(() => b.gatedActivation(out, x, y, f)), expected);
  }
  for (const width of [cols, 32]) {
    const weight = c.subarray(0, width);
    const expected = a.map((v, i) => {
      const run = a.subarray(i - (i % width), i - (i % width) + width);
      return (v / Math.sqrt(run.reduce((sum, r) => sum + r * r, 0) / width + 1e-5)) * weight[i % width];
    });
    compare("rmsNorm", await fresh(() => b.rmsNorm(out, x, b.loadVector(weight), 1e-5)), expected);
  }
  const gram = upload(cols, new Float32Array(cols * cols));
  b.addGram?.(gram, x);
  const sums = await b.read(gram);
  const upper = Array.from({ length: cols * cols }, (_, i) => i).filter((i) => i % cols >= Math.floor(i / cols));
  compare(
    "addGram",
    upper.map((i) => sums[i]),
    upper.map((i) => dotOfColumns(a, cols, Math.floor(i / cols), i % cols)),
  );
  b.release(gram);
  const [top] = await b.topK(x.rowRange(1, 1), 3);
  compare(
    "topK",
    top.values,
    a
      .slice(cols, 2 * cols)
      .sort()
      .reverse()
      .slice(0, 3),
  );

  // Rotation, then attention of five rows and of one over a cache of 150 positions.
  const [headDim, kvHeads, queryHeads, positions, tokens] = [32, 2, 4, 150, 5];
  const scale = 1 / Math.sqrt(headDim);
  const angles = numbers((positions * headDim) / 2);
  const table = b.loadRope(angles.map(Math.cos), angles.map(Math.sin), wholeHeads(headDim));
  const [qs, ks, vs] = [tokens * queryHeads, positions * kvHeads, positions * kvHeads].map((n) => numbers(n * headDim));
  const [q, k, v] = [upload(tokens, qs), upload(positions, ks), upload(positions, vs)];
  b.rope(k, table, 0);
  const rotated = rotate(ks, angles, kvHeads, headDim);
  compare("rope", await b.read(k), rotated);
  using cache = b.createKvCache({ layers: [{ heads: kvHeads, key: headDim, value: headDim }], slots: positions });
  b.appendKv(cache, 0, k, v, 0);
  const attended = b.allocate(tokens, queryHeads * headDim);
  const start = positions - tokens;
  const expected = attend(qs, rotated, vs, { queryHeads, kvHeads, headDim, scale, start });
  b.attention(attended, q, cache, 0, { queryHeads, scale, start });
  compare("attention", await b.read(attended), expected);
  const [lastOut, lastQ] = [attended, q].map((activation) => activation.rowRange(tokens - 1, 1));
  b.attention(lastOut, lastQ, cache, 0, { queryHeads, scale, start: positions - 1 });
  compare("attention of one row", await b.read(lastOut), expected.subarray(-lastOut.cols));
  if (b.rotatedAttention !== undefined) {
    // The last position once more, from what is not rotated.
    const last = positions - 1;
    const lastQs = rotate(qs.slice(-lastQ.cols), angles.subarray((last * headDim) / 2), queryHeads, headDim);
    const [queryWidth, kvWidth] = [queryHeads * headDim, kvHeads * headDim];
    const qkv = upload(1, Float32Array.of(...qs.slice(-queryWidth), ...ks.slice(-kvWidth), ...vs.slice(-kvWidth)));
    const [q, k, v] = [0, queryWidth, queryWidth + kvWidth].map((at, i) =>
      qkv.columns(at, i === 0 ? queryWidth : kvWidth),
    );
    const rows = { q, k, v };
    b.rotatedAttention(lastOut, rows, table, cache, 0, { queryHeads, scale, start: last, position: last });
    const wanted = attend(lastQs, rotated, vs, { queryHeads, kvHeads, headDim, scale, start: last });
    compare("rotatedAttention", await b.read(lastOut), wanted);
    b.release(qkv);
  }

  for (const activation of [q, k, v, attended]) b.release(activation);
  for (const activation of [x, y, out]) b.release(activation);
  if (wrong.length > 0) throw new DeviceError(`this GPU computes wrongly: ${wrong.join("; ")}`);
}

/** Product of two columns of f32 [rows, cols]. */
function dotOfColumns(x: Float32Array, cols: number, i: number, j: number): number {
  let sum = 0;
  for (let row = 0; row < x.length; row += cols) sum += x[row + i] * x[row + j];
  return sum;
}

/** See `Backend.rope`; positions from 0, `heads` heads in a row. */
function rotate(x: Float32Array, angles: Float32Array, heads: number, headDim: number): Float32Array {
  const half = headDim / 2;
  return x.map((value, i) => {
    const d = i % headDim;
    const angle = angles[Math.floor(i / (heads * headDim)) * half + (d % half)];
    const other = d < half ? -x[i + half] : x[i - half];
    return value * Math.cos(angle) + other * Math.sin(angle);
  });
}

/** See `Backend.attention`, without a window. */
function attend(
  q: Float32Array,
  keys: Float32Array,
  values: Float32Array,
  shape: { queryHeads: number; kvHeads: number; headDim: number; scale: number; start: number },
): Float32Array {
  const { queryHeads, kvHeads, headDim, scale, start } = shape;
  const out = new Float32Array(q.length);
  for (let begin = 0; begin < q.length; begin += headDim) {
    const head = (begin / headDim) % queryHeads;
    const position = start + Math.floor(begin / headDim / queryHeads);
    const at = (p: number) => (p * kvHeads + Math.floor((head * kvHeads) / queryHeads)) * headDim;
    const weights = Array.from({ length: position + 1 }, (_, p) => {
      let score = 0;
      for (let d = 0; d < headDim; d++) score += q[begin + d] * keys[at(p) + d];
      return Math.exp(score * scale);
    });
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    for (let d = 0; d < headDim; d++) {
      out[begin + d] = weights.reduce((sum, weight, p) => sum + (weight / total) * values[at(p) + d], 0);
    }
  }
  return out;
}
