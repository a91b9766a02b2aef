// Native attention against that of WebAssembly: CPU time of one thread for one layer, which other processes hardly change.
//   npm run build && node bench/attention-kernels.mjs [--contexts 128,2048,8192] [--rows 1,128] [--bits 32] [--kernels 0,avx2,avx512]
//                                                     [--heads 32 --kv-heads 4 --width 64] [--rounds 5]
// Rows stand behind so many tokens. --bits 8, 4 or 2: keys and values are codes. Least of the rounds, in which all kernels take turns; "×" is
// against the first of --kernels.
import { createBackend } from "../dist/kernels/wasm/index.js";
import { readOptions } from "../scripts/options.mjs";
import { describeMachine } from "./machine.mjs";
import { cpuMs } from "./stopwatch.mjs";

const { values } = readOptions({
  options: {
    contexts: { type: "string", default: "128,2048,8192" },
    rows: { type: "string", default: "1,128" },
    bits: { type: "string", default: "32" },
    kernels: { type: "string", default: "0,avx2,avx512" },
    heads: { type: "string", default: "32" },
    "kv-heads": { type: "string", default: "4" },
    width: { type: "string", default: "64" },
    rounds: { type: "string", default: "5" },
  },
});
const numbers = (text) => text.split(",").map(Number);
const [heads, kvHeads, width] = [values.heads, values["kv-heads"], values.width].map(Number);
const bits = Number(values.bits);
/** Rows that are appended at once. */
const chunk = 512;
/** Products of a query and a key in a sample, about. */
const work = 2e7;

function filled(backend, rows, cols, seed) {
  const x = backend.allocate(rows, cols);
  backend.write(
    x,
    Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i * 1.7 + seed)),
  );
  return x;
}

/** A function that attends so many times with the kernels named `id`, and waits. */
async function prepare(id, context, rows) {
  const backend = await createBackend({ threads: 1, native: id === "0" ? false : id });
  const slots = context + rows;
  const layers = [{ heads: kvHeads, key: width, value: width }];
  const cache = backend.createKvCache({ layers, slots, ...(bits < 32 && { codes: { bits } }) });
  for (let at = 0; at < slots; at += chunk) {
    const count = Math.min(chunk, slots - at);
    const [k, v] = [1, 2].map((seed) => filled(backend, count, kvHeads * width, seed));
    backend.appendKv(cache, 0, k, v, at);
    for (const activation of [k, v]) backend.release(activation);
  }
  const [q, out] = [filled(backend, rows, heads * width, 3), backend.allocate(rows, heads * width)];
  const options = { queryHeads: heads, scale: 1 / Math.sqrt(width), start: context };
  const run = async (times) => {
    for (let i = 0; i < times; i++) backend.attention(out, q, cache, 0, options);
    await backend.flush();
  };
  await run(1);
  return { id, run, least: Number.POSITIVE_INFINITY, dispose: () => backend[Symbol.dispose]() };
}

const { cpu, node, loadAverage } = describeMachine();
console.log(`${cpu}, Node ${node}, load average before the run ${loadAverage.toFixed(1)}`);
console.log(
  `${heads} heads over ${kvHeads} of ${width} columns, ${bits === 32 ? "f32" : `${bits}-bit`} caches, CPU ms`,
);
for (const context of numbers(values.contexts)) {
  for (const rows of numbers(values.rows)) {
    const all = [];
    for (const id of values.kernels.split(",")) all.push(await prepare(id, context, rows));
    const times = Math.max(1, Math.round(work / (rows * heads * context)));
    for (let round = 0; round < Number(values.rounds); round++) {
      for (const one of all) {
        const since = cpuMs();
        await one.run(times);
        one.least = Math.min(one.least, (cpuMs() - since) / times);
      }
    }
    for (const { id, least, dispose } of all) {
      const [name, faster] = [id === "0" ? "WebAssembly" : id, (all[0].least / least).toFixed(2)];
      console.log(
        `${rows} rows behind ${context}`.padEnd(24),
        name.padEnd(12),
        least.toFixed(3).padStart(9),
        ` ${faster} ×`,
      );
      dispose();
    }
  }
}
