// Native kernels against those of WebAssembly, product by product: CPU time of one thread, which other processes hardly change.
//
//   node kernels.mjs [--formats q8,q4,bf16,2:4-q8,bitmask-q8,bitmask-bf16] [--kernels 0,avx512] [--rounds 12] [--rows 5632] [--cols 2048] [--prompts 8,64]
//
// Every case has so many copies of its matrix that they come from memory, and all take turns within a round. Medians with lowest and
// highest; "× " is against the first of --kernels. Bit masks have half of their weights left.

import { createBackend } from "../dist/kernels/wasm/index.js";
import { readOptions } from "../scripts/options.mjs";
import { describeMachine } from "./machine.mjs";
import { median } from "./rounds.mjs";
import { cpuMs } from "./stopwatch.mjs";

const { values } = readOptions({
  options: {
    formats: { type: "string", default: "q8,q4,bf16,2:4-q8,2:4-bf16,bitmask-q8,bitmask-bf16" },
    kernels: { type: "string", default: "0,avx512" },
    rounds: { type: "string", default: "12" },
    rows: { type: "string", default: "5632" },
    cols: { type: "string", default: "2048" },
    prompts: { type: "string", default: "8,64" },
  },
});
const [rounds, rows, cols] = [values.rounds, values.rows, values.cols].map(Number);
const workingSetBytes = 128 << 20;
/** Rows of prompts. */
const prompts = values.prompts.split(",").map(Number);

/** bf16 numbers around 0.01; what a format leaves out is 0. */
function matrix(format) {
  let seed = 1;
  const present = (i) => (format.startsWith("2:4") ? i % 4 < 2 : !format.startsWith("bitmask") || (seed & 0x100) !== 0);
  return {
    name: "weights",
    rows,
    cols,
    dtype: "BF16",
    async read(_start, count, into) {
      const words = new Uint16Array(into.buffer, into.byteOffset, into.byteLength / 2);
      for (let i = 0; i < count * cols; i++) {
        seed = (Math.imul(seed, 1664525) + 1013904223) | 0;
        words[i] = present(i) ? 0x3c00 | ((seed >>> 16) & 0x80ff) : 0;
      }
    },
  };
}

const inputs = (count) => Float32Array.from({ length: count * cols }, (_, i) => Math.sin(i * 1.7));
/** Half of the sines lie below. */
const thresholds = [Math.SQRT1_2];

async function cases(format) {
  const all = [];
  for (const id of values.kernels.split(",")) {
    const backend = await createBackend({ threads: 1, native: id === "0" ? false : id });
    const copies = await backend.loadCopies(matrix(format), format, workingSetBytes);
    const operands = (count) => {
      const [x, y] = [backend.allocate(count, cols), backend.allocate(count, rows)];
      backend.write(x, inputs(count));
      return [y, x];
    };
    const [y, x] = operands(1);
    const add = (kind, some, run) => all.push({ id, kind, backend, copies: some, run, samples: [] });
    add("1 row", copies, (w) => backend.linear(y, x, w));
    add("1 row, half skipped", copies, (w) => backend.linear(y, x, w, { thresholds }));
    for (const count of prompts) {
      const [ys, xs] = operands(count);
      add(`${count} rows`, copies.slice(0, 2), (w) => backend.linear(ys, xs, w));
    }
  }
  return all;
}

const { cpu, node, loadAverage } = describeMachine();
console.log(
  `${cpu}, Node ${node}, load average before the run ${loadAverage.toFixed(1)}; ${rows} × ${cols}, CPU ms of a product`,
);
for (const format of values.formats.split(",")) {
  const all = await cases(format);
  for (let round = 0; round < rounds; round++) {
    for (const { backend, copies, run, samples } of all) {
      const start = cpuMs();
      for (const copy of copies) run(copy);
      await backend.flush();
      samples.push((cpuMs() - start) / copies.length);
    }
  }
  for (const { id, kind, samples } of all) {
    const first = all.find((other) => other.kind === kind);
    const [ms, low, high] = [median(samples), Math.min(...samples), Math.max(...samples)].map((v) => v.toFixed(2));
    const times = (median(first.samples) / median(samples)).toFixed(2);
    const name = id === "0" ? "WebAssembly" : id;
    console.log(
      `${format.padEnd(13)} ${kind.padEnd(20)} ${name.padEnd(12)} ${ms.padStart(7)} (${low} – ${high})  ${times} ×`,
    );
  }
  for (const backend of new Set(all.map((one) => one.backend))) backend[Symbol.dispose]();
}
