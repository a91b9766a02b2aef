// Terraformer's layers in whole models beside the dense one of the same widths: decoded tokens of random weights, in turn in one process.
//   npm run build && node bench/terraformer.mjs [--layers 8] [--width 1024] [--heads 16] [--block 32] [--rank 64] [--tokens 16] [--prompt 16]
//     [--rounds 3] [--only NAME …] [--threads 1] [--weights bf16] [--backend wasm] [--json]
// Units are 4 × the width, with ReLU everywhere. "dense" reads all columns behind the ReLU, "zeros skipped" leaves out those of zeros, as models
// do by default; the others have a controller, and in attention products of two thin matrices or convolutions. `MB` are the weights that were
// read for a token, counted; `ms` the median of what a token takes, in CPU time with one thread, else by the clock; `prompt` the same of a
// token of a prompt.

import { readModelSpec } from "../dist/arch/index.js";
import { Random } from "../dist/core/index.js";
import { memoryFiles, memorySinks, openCheckpoint, writeSafetensors } from "../dist/io/index.js";
import { openBackend } from "../dist/kernels/index.js";
import { loadModel } from "../dist/model/index.js";
import { fromFloat32 } from "../dist/tensor/index.js";
import { modelParameters } from "../dist/train/index.js";
import { readOptions } from "../scripts/options.mjs";

const numeric = {
  ...{ layers: "8", width: "1024", heads: "16", block: "32", rank: "64" },
  ...{ tokens: "16", prompt: "16", rounds: "3", threads: "1" },
};
const { values } = readOptions({
  options: {
    ...Object.fromEntries(Object.entries(numeric).map(([name, value]) => [name, { type: "string", default: value }])),
    weights: { type: "string", default: "bf16" },
    only: { type: "string", multiple: true },
    backend: { type: "string", default: "wasm" },
    json: { type: "boolean", default: false },
  },
});
const [layers, width, heads, block, rank, tokens, prompt, rounds, threads] = Object.keys(numeric).map((name) =>
  Number(values[name]),
);
const vocabulary = 1024;

const kinds = {
  dense: { attention: "dense", thresholds: "dense" },
  "dense, zeros skipped": { attention: "dense" },
  "one unit of a block": { attention: "dense", controlled: true },
  "and multiplicative attention": { attention: "multiplicative", controlled: true },
  "and convolutional attention": { attention: "convolutional", controlled: true },
};

const random = new Random(1);
const normals = Float32Array.from({ length: 1 << 20 }, () => random.normal());

/** A checkpoint in memory, of bf16 numbers that repeat after a million. */
async function checkpointOf({ attention, controlled }) {
  const config = {
    ...{ model_type: "terraformer", vocab_size: vocabulary, hidden_size: width, intermediate_size: 4 * width },
    ...{ num_hidden_layers: layers, num_attention_heads: heads, max_position_embeddings: 4096 },
    attention_layers: attention,
    ...(controlled && { controller_block: block, controller_rank: rank }),
  };
  const tensors = modelParameters(readModelSpec(config, "config.json")).map(({ ref, shape, start }) => ({
    name: ref.tensor,
    shape,
    dtype: "BF16",
    bytes: () => [fromFloat32("BF16", numbersOf(shape, start))],
  }));
  const files = new Map([["config.json", new TextEncoder().encode(JSON.stringify(config))]]);
  await writeSafetensors(memorySinks(files), tensors);
  return openCheckpoint(memoryFiles("random weights", files));
}

function numbersOf(shape, start) {
  const length = shape.reduce((all, size) => all * size, 1);
  const size = { ones: 0, zeros: 0, unit: 1 }[start] ?? 1 / Math.sqrt(shape.at(-1));
  const offset = start === "ones" ? 1 : 0;
  const from = random.integer(normals.length);
  return Float32Array.from({ length }, (_, i) => offset + size * normals[(from + i) % normals.length]);
}

async function open(name) {
  const kind = kinds[name];
  const backend = await openBackend(values.backend, values.backend === "wasm" ? { threads } : {});
  const model = await loadModel(await checkpointOf(kind), backend, { weights: values.weights });
  return { name, kind, backend, model, ms: [], promptMs: [], bytes: 0 };
}

/** Milliseconds so far. */
const now = () => {
  if (threads > 1 || values.backend !== "wasm") return performance.now();
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const ids = (length) => Uint32Array.from({ length }, () => random.integer(vocabulary));

async function measure(opened) {
  const { backend, model, kind } = opened;
  const cache = model.createCache(prompt + tokens);
  const run = async (part, start) => {
    const begin = now();
    const logits = await model.forward(
      part,
      cache,
      start,
      kind.thresholds ? { thresholds: kind.thresholds } : { sparseFrom: prompt },
    );
    await backend.read(logits);
    backend.release(logits);
    return now() - begin;
  };
  opened.promptMs.push((await run(ids(prompt), 0)) / prompt);
  backend.takeCounters();
  for (let token = 0; token < tokens; token++) opened.ms.push(await run(ids(1), prompt + token));
  opened.bytes = backend.takeCounters().weightBytesRead / tokens;
  cache[Symbol.dispose]();
}

const median = (times) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];
const all = [];
for (const name of values.only ?? Object.keys(kinds)) all.push(await open(name));
// The first round is none: code is still being compiled.
for (let round = 0; round <= rounds; round++) {
  if (round === 1) for (const opened of all) opened.ms.length = opened.promptMs.length = 0;
  for (const opened of all) await measure(opened);
}
const [dense] = all;
const rows = all.map(({ name, model, ms, promptMs, bytes }) => ({
  name,
  "MB loaded": model.weightBytes.loaded / 1e6,
  MB: bytes / 1e6,
  "share read": bytes / dense.bytes,
  ms: median(ms),
  "speed-up": median(dense.ms) / median(ms),
  "prompt, ms": median(promptMs),
}));
for (const { model, backend } of all) {
  model[Symbol.dispose]();
  backend[Symbol.dispose]();
}
if (values.json) console.log(JSON.stringify(rows, undefined, 1));
else console.table(rows);
