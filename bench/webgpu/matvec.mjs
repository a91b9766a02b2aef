// One matrix-vector product on WebGPU in every weight format, dense and with a threshold on its inputs.
//
//   node matvec.mjs [--formats bf16,q8,q4,bitmask-bf16,2:4-bf16] [--shapes 14336x4096,4096x14336]
//                   [--sparsities 0.4,0.5,0.65,0.8] [--rotate 400e6] [--products 200] [--rounds 7]
//                   [--warm-up 500] [--gate] [--out result.json]
//
// Through the backend, as a model calls it. The time of a product is the GPU's, by timestamps around the passes of n
// products; where it keeps none, the difference of wall time between 2n and n products, over n, in which recording shows where it
// takes longer than the GPU. Medians over the rounds. Each case first runs for a while (milliseconds), until the GPU's
// clock is up. Matrices are rotated over more bytes than a cache holds. Weights are random, of two in four where the format leaves
// zeros out; every row tile is one of a few that were packed once. With --gate inputs are SiLU(x) times a second vector, as those
// of a down projection are.

import { writeFileSync } from "node:fs";
import { Random } from "../../dist/core/index.js";
import { createBackend } from "../../dist/kernels/webgpu/index.js";
import { sparseFormats, weightFormats } from "../../dist/pack/index.js";
import { readOptions } from "../../scripts/options.mjs";
import { gpuMs } from "./meter.mjs";

const { values } = readOptions({
  options: {
    formats: { type: "string", default: "bf16,q8,q4,bitmask-bf16,2:4-bf16" },
    shapes: { type: "string", default: "14336x4096,4096x14336" },
    sparsities: { type: "string", default: "0.4,0.5,0.65,0.8" },
    rotate: { type: "string", default: "400e6" },
    products: { type: "string", default: "200" },
    rounds: { type: "string", default: "7" },
    "warm-up": { type: "string", default: "500" },
    gate: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const sparsities = values.sparsities.split(",").map(Number);
const [rotate, products, rounds] = ["rotate", "products", "rounds"].map((name) => Number(values[name]));

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

/** f32 [rows, cols]: normal, or with two of every four inputs left. */
function randomWeights(random, rows, cols, halved) {
  return Float32Array.from({ length: rows * cols }, (_, i) =>
    halved && i % 4 !== Math.floor(i / 4) % 3 && i % 4 !== 3 ? 0 : random.normal(),
  );
}

/** What was packed, until the next matrix. */
const memories = [];

/** What `make` gives is made for a few contents of every shape, and then given again and again. */
function remembered(make, contents = 4) {
  const known = new Map();
  memories.push(known);
  let turn = 0;
  return (weights, rows, cols, ...rest) => {
    const key = `${rows} ${cols} ${turn++ % contents}`;
    if (!known.has(key)) known.set(key, make(weights, rows, cols, ...rest));
    return known.get(key);
  };
}

/** From now on large tiles are packed once. Small ones are the backend checking itself. */
function packOnce() {
  for (const format of Object.values(weightFormats)) {
    const { pack } = format;
    const again = remembered((...tile) => pack.apply(format, tile));
    format.pack = (weights, rows, cols, scales) =>
      (cols < 1024 ? pack.bind(format) : again)(weights, rows, cols, scales);
  }
  for (const format of Object.values(sparseFormats)) {
    const { packer } = format;
    const written = remembered((dense, rows, cols) => {
      const exact = packer.call(format, rows, cols);
      exact.measure(dense, 0, rows);
      const bytes = new Uint8Array(exact.byteLength);
      exact.write(dense, 0, rows, bytes);
      return bytes;
    });
    format.packer = (rows, cols) => {
      if (cols < 1024) return packer.call(format, rows, cols);
      let bytes;
      return {
        measure(dense) {
          bytes = written(dense, rows, cols);
        },
        get byteLength() {
          return bytes.byteLength;
        },
        write: (_dense, _start, _count, into) => into.set(bytes),
      };
    };
  }
}

async function measure(backend, format, rows, cols) {
  for (const memory of memories) memory.clear();
  const random = new Random(1);
  const tile = randomWeights(random, 128, cols, format in sparseFormats);
  const bytes = new Uint8Array(tile.buffer);
  const source = {
    name: "random",
    rows,
    cols,
    dtype: "F32",
    read: async (_start, count, into) => into.set(bytes.subarray(0, count * cols * 4)),
  };
  const matrices = [await backend.loadMatrix([source], format)];
  while (matrices.length * matrices[0].byteLength < rotate) matrices.push(await backend.loadMatrix([source], format));
  const [inputs, ups] = [0, 1].map(() => Float32Array.from({ length: cols }, () => random.normal()));
  const multiplied = values.gate ? inputs.map((v, i) => (v / (1 + Math.exp(-v))) * ups[i]) : inputs;
  const ordered = multiplied.map(Math.abs).sort();
  const [x, up, out] = [cols, cols, rows].map((length) => backend.allocate(1, length));
  backend.write(x, inputs);
  backend.write(up, ups);
  const gate = values.gate ? { up, f: "silu" } : undefined;

  const enqueue = async (count, options) => {
    const begun = performance.now();
    for (let i = 0; i < count; i++) backend.linear(out, x, matrices[i % matrices.length], options);
    await backend.flush();
    return performance.now() - begun;
  };
  const timed = async (count, options) => {
    const once = performance.now();
    const onGpu = await gpuMs(() => enqueue(count, options));
    if (onGpu !== undefined) return onGpu;
    const elapsed = performance.now() - once;
    return (await enqueue(2 * count, options)) - elapsed;
  };
  const cases = [{ gate }, ...sparsities.map((s) => ({ gate, thresholds: [ordered[Math.floor(s * cols) - 1]] }))];
  const results = [];
  for (const [i, options] of cases.entries()) {
    const warm = performance.now() + Number(values["warm-up"]);
    do await enqueue(products, options);
    while (performance.now() < warm);
    backend.takeCounters();
    await enqueue(products, options);
    const bytesRead = backend.takeCounters().weightBytesRead / products;
    const times = [];
    for (let round = 0; round < rounds; round++) times.push((await timed(products, options)) / products);
    const microseconds = median(times) * 1000;
    results.push({
      format,
      rows,
      cols,
      sparsity: i === 0 ? null : sparsities[i - 1],
      microseconds,
      bytesRead,
      gigabytesPerSecond: bytesRead / microseconds / 1e3,
      speedUp: (results[0]?.microseconds ?? microseconds) / microseconds,
    });
  }
  for (const activation of [x, up, out]) backend.release(activation);
  return results;
}

packOnce();
const all = [];
for (const shape of values.shapes.split(",")) {
  const [rows, cols] = shape.split("x").map(Number);
  for (const format of values.formats.split(",")) {
    // A backend of its own, so that what was measured before gives its memory back.
    const backend = await createBackend();
    if (all.length === 0) console.log(backend.info.description);
    const results = await measure(backend, format, rows, cols);
    for (const { sparsity, microseconds, gigabytesPerSecond, speedUp } of results) {
      const inputs = sparsity === null ? "dense" : `${Math.round(100 * sparsity)} %`;
      const figures = `${microseconds.toFixed(1)} µs, ${gigabytesPerSecond.toFixed(0)} GB/s, ${speedUp.toFixed(2)} × dense`;
      console.log(`${format} ${rows} × ${cols}, ${inputs}: ${figures}`);
    }
    all.push(...results);
    backend[Symbol.dispose]();
  }
}
if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(all));
