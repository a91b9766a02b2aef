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

// --- pruning while reading ---------------------------------------------------------------------------------------------

/** Zeroes the smallest magnitudes of a row of bf16 numbers, by counting. */
function pruneRow(row, share) {
  // Magnitudes that share exponent and three bits count as equal; the first of them go.
  const counts = new Uint32Array(0x800);
  for (const word of row) counts[(word & 0x7fff) >> 4]++;
  let left = Math.round(row.length * share);
  let cut = 0;
  for (; counts[cut] <= left; cut++) left -= counts[cut];
  for (let i = 0; i < row.length; i++) {
    const magnitude = (row[i] & 0x7fff) >> 4;
    if (magnitude < cut || (magnitude === cut && left-- > 0)) row[i] = 0;
  }
}

function pruneFours(row) {
  for (let i = 0; i < row.length; i += 4) {
    for (let drop = 0; drop < 2; drop++) {
      let least = -1;
      for (let k = i; k < i + 4; k++) {
        const magnitude = row[k] & 0x7fff;
        if (magnitude !== 0 && (least < 0 || magnitude < (row[least] & 0x7fff))) least = k;
      }
      if (least >= 0) row[least] = 0;
    }
  }
}

const isBlockMatrix = (name) => name.endsWith("_proj.weight");

/** The checkpoint with pruned matrices; rows are read whole. */
function pruned(checkpoint, { structure, share }) {
  if (structure === "dense") return checkpoint;
  if (structure === "smaller") return smaller(checkpoint, share);
  const prune = structure === "2:4" ? pruneFours : (row) => pruneRow(row, share);
  return {
    ...bound(checkpoint),
    async read(name, byteOffset, byteLength, into) {
      const bytes = await checkpoint.read(name, byteOffset, byteLength, into);
      if (isBlockMatrix(name) || (options.head && name === "lm_head.weight")) {
        const words = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
        const cols = checkpoint.tensors.get(name).shape[1];
        for (let r = 0; r < words.length; r += cols) prune(words.subarray(r, r + cols));
      }
      return bytes;
    },
  };
}

/** The first neurons and heads of every block. */
function smaller(checkpoint, share) {
  const { config } = checkpoint;
  const keep = (n) => Math.round(n * (1 - share));
  const [heads, kvHeads, ffn] = ["num_attention_heads", "num_key_value_heads", "intermediate_size"].map((key) =>
    keep(config[key]),
  );
  const headDim = config.head_dim;
  const rowsOf = {
    q_proj: heads * headDim,
    k_proj: kvHeads * headDim,
    v_proj: kvHeads * headDim,
    gate_proj: ffn,
    up_proj: ffn,
  };
  const colsOf = { o_proj: heads * headDim, down_proj: ffn };
  const tensors = new Map(checkpoint.tensors);
  for (const [name, info] of tensors) {
    const projection = name.split(".").at(-2);
    const [rows, cols] = info.shape;
    if (isBlockMatrix(name))
      tensors.set(name, { ...info, shape: [rowsOf[projection] ?? rows, colsOf[projection] ?? cols] });
  }
  return {
    ...bound(checkpoint),
    config: { ...config, num_attention_heads: heads, num_key_value_heads: kvHeads, intermediate_size: ffn },
    tensors,
    async read(name, byteOffset = 0, byteLength, into) {
      const [, cols] = tensors.get(name).shape;
      const [, stored] = checkpoint.tensors.get(name).shape;
      if (cols === stored || stored === undefined) return checkpoint.read(name, byteOffset, byteLength, into);
      const rows = byteLength / (2 * cols);
      const bytes = await checkpoint.read(name, (byteOffset / cols) * stored, rows * stored * 2);
      for (let r = 0; r < rows; r++) into.set(bytes.subarray(r * stored * 2, r * stored * 2 + cols * 2), r * cols * 2);
      return into;
    },
  };
}

const bound = (checkpoint) => ({
  location: checkpoint.location,
  files: checkpoint.files,
  config: checkpoint.config,
  artifact: checkpoint.artifact,
  tensors: checkpoint.tensors,
  readFloat32: (name) => checkpoint.readFloat32(name),
  readJson: (name) => checkpoint.readJson(name),
  close: () => checkpoint.close(),
});

// --- models ------------------------------------------------------------------------------------------------------------

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
    const model = await loadModel(pruned(checkpoint, { structure, share }), backend, {
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
