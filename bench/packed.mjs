// What packed sparse weights give: decode speed of pruned variants of a model against the dense model, in one run.
//
//   node packed.mjs [--model .models/llama-1.1b] [--weights bf16] [--threads 2] [--rounds 5] [--tokens 16] [--head]
//                   [--variants dense,bitmask@50,bitmask@70,2:4,smaller@25,dense+teal@50,bitmask@50+teal@50] [--out FILE.json] [--hold]
//
// Weights are pruned while they are read: `bitmask@S` keeps the largest of each row, `2:4` the two largest of every four,
// `smaller@S` removes that share of the neurons, query heads and key heads, `auto@S` is `bitmask@S` laid out as the cost model
// says. The blocks' matrices are pruned; with --head the output head too. `+teal@S` adds activation sparsity. All variants
// are in memory at once and take turns in every round; figures are medians. --layers N takes the first N blocks. --hold waits for a line on standard input once
// everything is loaded.

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openBackend } from "../dist/kernels/index.js";
import { describeChoices, loadModel } from "../dist/model/index.js";
import { calibrateActivationSparsity, toThresholds } from "../dist/pipeline/index.js";
import { readOptions } from "../scripts/options.mjs";
import { promptIds } from "./prompt.mjs";
import { pruned } from "./pruned.mjs";

const { values: options } = readOptions({
  options: {
    model: { type: "string", default: join(import.meta.dirname, ".models/llama-1.1b") },
    weights: { type: "string", default: "bf16" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    tokens: { type: "string", default: "16" },
    variants: {
      type: "string",
      default: "dense,bitmask@50,bitmask@70,2:4,smaller@25,dense+teal@50,bitmask@50+teal@50",
    },
    head: { type: "boolean", default: false },
    hold: { type: "boolean", default: false },
    layers: { type: "string" },
    out: { type: "string" },
  },
});
const [threads, rounds, tokens] = [options.threads, options.rounds, options.tokens].map(Number);

/** "bitmask@50+teal@40" → { structure, share, teal } */
function parseVariant(name) {
  const [weights, activations] = name.split("+");
  const [structure, percent = "0"] = weights.split("@");
  const teal = activations === undefined ? undefined : Number(activations.replace("teal@", "")) / 100;
  return { name, structure, share: Number(percent) / 100, teal };
}

const checkpoint = await openCheckpoint(directoryFiles(options.model));
if (options.layers !== undefined) checkpoint.config.num_hidden_layers = Number(options.layers);
const loaded = new Map();

/** Variants with the same weights share a model. */
async function load({ structure, share }) {
  const key = `${structure}@${share}`;
  if (!loaded.has(key)) {
    const started = performance.now();
    const backend = await openBackend("wasm", { threads });
    const layout = structure === "smaller" ? "dense" : structure;
    const model = await loadModel(pruned(checkpoint, { structure, share, head: options.head }), backend, {
      weights: options.weights,
      structure: layout,
    });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    process.stderr.write(`${key}: loaded in ${seconds} s, ${describeChoices(model.choices)}\n`);
    loaded.set(key, { backend, model });
  }
  return loaded.get(key);
}

async function thresholdsOf(model, sparsity) {
  const text = { tokens: Uint32Array.from(promptIds(256, model.config.vocabSize)), sha256: "0".repeat(64) };
  const { records } = await calibrateActivationSparsity(model, text, {
    sparsities: [sparsity],
    window: 128,
    calibrationWindows: 2,
  });
  return toThresholds(records[0]);
}

const variants = [];
for (const name of options.variants.split(",")) {
  const variant = parseVariant(name);
  const { backend, model } = await load(variant);
  const thresholds = variant.teal === undefined ? undefined : await thresholdsOf(model, variant.teal);
  variants.push({ name, backend, model, thresholds, speeds: [] });
}

/** Tokens per second of `tokens` greedy steps after one token, and weight bytes read by each. */
async function decode({ backend, model, thresholds }) {
  const cache = model.createCache(tokens + 1);
  const step = async (ids, start) => {
    const logits = await model.forward(ids, cache, start, { thresholds });
    const [top] = await backend.topK(logits, 1);
    backend.release(logits);
    return top.ids;
  };
  let next = await step(Uint32Array.of(5), 0);
  backend.takeCounters();
  const started = performance.now();
  for (let i = 1; i <= tokens; i++) next = await step(next, i);
  const elapsedMs = performance.now() - started;
  const { weightBytesRead, inputs, inputsSkipped } = backend.takeCounters();
  cache[Symbol.dispose]();
  return {
    tokensPerSecond: (tokens * 1000) / elapsedMs,
    bytesPerToken: weightBytesRead / tokens,
    inputsSkipped: inputs === 0 ? 0 : inputsSkipped / inputs,
  };
}

if (options.hold) {
  process.stdout.write("loaded\n");
  await new Promise((resolve) => process.stdin.once("data", resolve));
}
const first = variants[0].backend;
const readBytesPerSecond = await first.measureReadBandwidth(128 << 20, 3);
for (const variant of variants) await decode(variant);
for (let round = 0; round < rounds; round++) {
  const order = round % 2 === 0 ? variants : variants.toReversed();
  for (const variant of order) variant.speeds.push(await decode(variant));
}

const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
const results = variants.map(({ name, model, speeds }) => ({
  name,
  tokensPerSecond: median(speeds.map((speed) => speed.tokensPerSecond)),
  lowest: Math.min(...speeds.map((speed) => speed.tokensPerSecond)),
  highest: Math.max(...speeds.map((speed) => speed.tokensPerSecond)),
  bytesPerToken: speeds[0].bytesPerToken,
  inputsSkipped: speeds[0].inputsSkipped,
  layout: describeChoices(model.choices),
}));
const report = {
  node: process.version,
  backend: first.info.description,
  weights: options.weights,
  headPruned: options.head,
  readBytesPerSecond,
  rounds,
  tokens,
  results,
};
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(report, undefined, 2)}\n`);
const [base] = results;
console.log(
  `${process.version}, ${first.info.description}, ${options.weights}, reads ${(readBytesPerSecond / 1e9).toFixed(1)} GB/s, median of ${rounds} rounds of ${tokens} tokens`,
);
for (const result of results) {
  console.log(
    result.name.padEnd(22),
    `${result.tokensPerSecond.toFixed(2).padStart(6)} tokens/s (${result.lowest.toFixed(2)} to ${result.highest.toFixed(2)})`,
    `${(result.tokensPerSecond / base.tokensPerSecond).toFixed(2)} ×`,
    `${(result.bytesPerToken / 1e6).toFixed(0).padStart(5)} MB/token`,
    result.inputsSkipped > 0 ? `${(100 * result.inputsSkipped).toFixed(0)} % of inputs skipped` : "",
  );
}
for (const { backend, model } of loaded.values()) {
  model[Symbol.dispose]();
  backend[Symbol.dispose]();
}
await checkpoint.close();
process.exit(0);
