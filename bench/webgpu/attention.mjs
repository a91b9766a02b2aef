// Attention of one token on WebGPU, with its rotation and the cache, behind so many keys.
//
//   node attention.mjs [--heads 32] [--kv-heads 32] [--head-dim 128] [--layers 32] [--keys 130,519,1023] [--rounds 7]
//                      [--warm-up 2000] [--out result.json]
//
// Through the backend, as a model calls it. Layers take turns, each with a cache of its own, so that none is in the GPU's cache.
// The time of one is the GPU's, by timestamps around the passes of six turns; medians over the rounds, after a while in which the
// GPU's clock comes up (milliseconds).

import { writeFileSync } from "node:fs";
import { Random } from "../../dist/core/index.js";
import { createBackend } from "../../dist/kernels/webgpu/index.js";
import { readOptions } from "../../scripts/options.mjs";
import { median } from "../rounds.mjs";
import { gpuMs } from "./meter.mjs";

const { values } = readOptions({
  options: {
    heads: { type: "string", default: "32" },
    "kv-heads": { type: "string", default: "32" },
    "head-dim": { type: "string", default: "128" },
    layers: { type: "string", default: "32" },
    keys: { type: "string", default: "130,519,1023" },
    rounds: { type: "string", default: "7" },
    "warm-up": { type: "string", default: "2000" },
    out: { type: "string" },
  },
});
const [queryHeads, kvHeads, headDim, layers, rounds] = ["heads", "kv-heads", "head-dim", "layers", "rounds"].map(
  (name) => Number(values[name]),
);
const keyCounts = values.keys.split(",").map(Number);
const turns = 6;

const backend = await createBackend();
console.log(backend.info.description);
const random = new Random(1);
const normals = (count) => Float32Array.from({ length: count }, () => random.normal());
const slots = Math.max(...keyCounts) + 1;
const [queryCols, keyCols] = [queryHeads * headDim, kvHeads * headDim];
const cache = backend.createKvCache({
  layers: Array.from({ length: layers }, () => ({ heads: kvHeads, key: headDim, value: headDim })),
  slots,
});
const rows = backend.allocate(slots, keyCols);
backend.write(rows, normals(slots * keyCols));
for (let layer = 0; layer < layers; layer++) backend.appendKv(cache, layer, rows, rows, 0);
const qkv = backend.allocate(1, queryCols + 2 * keyCols);
backend.write(qkv, normals(qkv.cols));
const out = backend.allocate(1, queryCols);
const angles = normals((slots * headDim) / 2);
const layout = { headDim, first: 0, width: headDim, pairs: "halves" };
const table = backend.loadRope(angles.map(Math.cos), angles.map(Math.sin), layout);
const parts = {
  q: qkv.columns(0, queryCols),
  k: qkv.columns(queryCols, keyCols),
  v: qkv.columns(queryCols + keyCols, keyCols),
};

async function attend(start) {
  const options = { queryHeads, scale: 1 / Math.sqrt(headDim), start, position: start };
  for (let turn = 0; turn < turns; turn++) {
    for (let layer = 0; layer < layers; layer++) backend.rotatedAttention(out, parts, table, cache, layer, options);
  }
  await backend.flush();
}

const results = [];
const warm = performance.now() + Number(values["warm-up"]);
do await attend(slots - 1);
while (performance.now() < warm);
for (const keys of keyCounts) {
  await attend(keys);
  const times = [];
  for (let round = 0; round < rounds; round++) times.push((1000 * (await gpuMs(() => attend(keys)))) / turns / layers);
  const bytes = 2 * (keys + 1) * keyCols * 4;
  const range = { least: Math.min(...times), most: Math.max(...times) };
  results.push({ queryHeads, kvHeads, headDim, keys, microseconds: median(times), ...range, bytes });
  const spread = `${range.least.toFixed(1)}–${range.most.toFixed(1)}`;
  console.log(`behind ${keys} keys: ${median(times).toFixed(1)} µs (${spread}), ${(bytes / 1e6).toFixed(1)} MB`);
}
if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(results));
process.exit(0); // a live GPU object would keep the process running
