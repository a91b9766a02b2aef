// Decode time of one large matrix against the share of its inputs that are zero, 0 … 90 %, on the built package:
//   node bench/sparsity-curve.mjs [--rows 14336] [--cols 4096] [--weights q8] [--threads 2] [--rounds 7] [--json]
//
// Copies of the matrix are taken in turn so that no cache holds the one that comes next, and the sparsities take turns within
// each round. The medians are set against the straight line through them, a · (1 − sparsity) + constant.

import { openBackend } from "../dist/kernels/index.js";
import { readOptions } from "../scripts/options.mjs";

const { values: options } = readOptions({
  options: {
    rows: { type: "string", default: "14336" },
    cols: { type: "string", default: "4096" },
    weights: { type: "string", default: "q8" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "7" },
    json: { type: "boolean", default: false },
  },
});
const [rows, cols, threads, rounds] = ["rows", "cols", "threads", "rounds"].map((name) => Number(options[name]));
const workingSetBytes = 1 << 30;

const backend = await openBackend("wasm", { threads });
let state = 1;
const uniform = () => {
  state = (Math.imul(state, 1664525) + 1013904223) | 0;
  return (state >>> 0) / 2 ** 32;
};
/** bf16 numbers of mixed signs around 0.01. */
const source = {
  name: "matrix",
  rows,
  cols,
  dtype: "BF16",
  read: async (_start, _count, into) => {
    const words = new Uint16Array(into.buffer, into.byteOffset, into.byteLength / 2);
    for (let i = 0; i < words.length; i++) words[i] = 0x3c00 | (Math.imul(i, 0x9e3779b1) >>> 25) | ((i & 1) << 15);
  },
};
const copies = [await backend.loadMatrix([source], options.weights)];
while (copies.length * copies[0].byteLength < workingSetBytes) {
  copies.push(await backend.loadMatrix([source], options.weights));
}
const x = backend.allocate(1, cols);
const y = backend.allocate(1, rows);
backend.write(
  x,
  Float32Array.from({ length: cols }, () => (uniform() < 0.5 ? -1 : 1) * uniform()),
);

const sparsities = Array.from({ length: 10 }, (_, i) => i / 10);
const times = sparsities.map(() => []);
const skipped = [];
for (let round = 0; round <= rounds; round++) {
  const order = sparsities.map((_, i) => (round % 2 === 0 ? i : sparsities.length - 1 - i));
  for (const i of order) {
    // |x| is uniform, so the threshold is the sparsity.
    const linear = sparsities[i] === 0 ? {} : { thresholds: [sparsities[i]] };
    backend.takeCounters();
    const start = performance.now();
    for (const matrix of copies) backend.linear(y, x, matrix, linear);
    await backend.flush();
    const elapsedMs = (performance.now() - start) / copies.length;
    const { inputs, inputsSkipped } = backend.takeCounters();
    skipped[i] = inputs === 0 ? 0 : inputsSkipped / inputs;
    if (round > 0) times[i].push(elapsedMs);
  }
}

const median = (values) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
const medians = times.map(median);
// Least squares on kept = 1 − sparsity.
const kept = skipped.map((s) => 1 - s);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const slope =
  mean(kept.map((k, i) => (k - mean(kept)) * (medians[i] - mean(medians)))) /
  mean(kept.map((k) => (k - mean(kept)) ** 2));
const constant = mean(medians) - slope * mean(kept);
const results = medians.map((ms, i) => ({
  sparsity: skipped[i],
  elapsedMs: ms,
  relative: ms / medians[0],
  fromLine: ms / (slope * kept[i] + constant) - 1,
}));
const report = {
  matrix: `${rows} × ${cols}`,
  weights: options.weights,
  backend: backend.info.description,
  copies: copies.length,
  rounds,
  constantShareOfDense: constant / medians[0],
  largestDistanceFromLine: Math.max(...results.map(({ fromLine }) => Math.abs(fromLine))),
  results,
};
backend[Symbol.dispose]();

if (options.json) process.stdout.write(`${JSON.stringify(report)}\n`);
else {
  const percent = (value) => `${(100 * value).toFixed(1)} %`.padStart(8);
  const lines = results.map(
    ({ sparsity, elapsedMs, relative, fromLine }) =>
      `${percent(sparsity)}  ${elapsedMs.toFixed(3).padStart(8)} ms  ${percent(relative)} of dense  ${percent(fromLine)} from the line`,
  );
  process.stdout.write(
    `${report.matrix} ${report.weights}, ${report.backend}, ${report.copies} copies, median of ${rounds}\n${lines.join("\n")}\n` +
      `constant ${percent(report.constantShareOfDense)} of dense, at most ${percent(report.largestDistanceFromLine)} from the line\n`,
  );
}
