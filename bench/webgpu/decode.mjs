// Decode and prefill of a random model of Llama-2-7B shape on WebGPU, dense and with activation thresholds, in one run.
//
//   node decode.mjs [--weights bf16,q4] [--sparsities 0.4,0.5] [--layers 32] [--prompt 512] [--tokens 64] [--rounds 3]
//                   [--kernels] [--out result.json]
//
// Nothing is stored: every row tile of a matrix is one of a few that were packed from random numbers. Thresholds are
// quantiles of |x| at each projection, taken over the prompt; the share of inputs skipped is counted while measuring.
// Variants take turns, round by round; figures are medians. Beside the time of a token stand the processor's (all threads),
// the GPU's (by timestamps, in decoding of their own after the rounds) and the calls of WebGPU. With --kernels also what each
// kernel takes of a prompt and of 8 tokens, every dispatch in a pass of its own.

import { writeFileSync } from "node:fs";
import { readersOf } from "../../dist/arch/index.js";
import { Random } from "../../dist/core/index.js";
import { createBackend } from "../../dist/kernels/webgpu/index.js";
import { loadModel } from "../../dist/model/index.js";
import { weightFormats } from "../../dist/pack/index.js";
import { readOptions } from "../../scripts/options.mjs";
import { promptIds } from "../prompt.mjs";
import { counted, gpuMs } from "./meter.mjs";

const { values } = readOptions({
  options: {
    weights: { type: "string", default: "bf16,q4" },
    sparsities: { type: "string", default: "0.4,0.5" },
    layers: { type: "string", default: "32" },
    hidden: { type: "string", default: "4096" },
    ffn: { type: "string", default: "11008" },
    tokens: { type: "string", default: "64" },
    prompt: { type: "string", default: "512" },
    rounds: { type: "string", default: "3" },
    kernels: { type: "boolean", default: false },
    out: { type: "string" },
  },
});
const sparsities = values.sparsities.split(",").map(Number);
const [layers, hidden, ffn, tokens, prompt, rounds] = ["layers", "hidden", "ffn", "tokens", "prompt", "rounds"].map(
  (name) => Number(values[name]),
);
const heads = hidden / 128;
const vocab = 32000;

/** Shapes of all tensors, and reads of nothing: what is loaded comes from `packRandomTiles`. */
function randomCheckpoint() {
  const tensors = new Map();
  const add = (name, ...shape) => tensors.set(name, { dtype: "F32", shape });
  tensors.set("model.embed_tokens.weight", { dtype: "BF16", shape: [vocab, hidden] });
  for (let layer = 0; layer < layers; layer++) {
    const name = (part) => `model.layers.${layer}.${part}.weight`;
    for (const part of ["input_layernorm", "post_attention_layernorm"]) add(name(part), hidden);
    for (const part of ["q_proj", "k_proj", "v_proj", "o_proj"]) add(name(`self_attn.${part}`), hidden, hidden);
    for (const part of ["gate_proj", "up_proj"]) add(name(`mlp.${part}`), ffn, hidden);
    add(name("mlp.down_proj"), hidden, ffn);
  }
  add("model.norm.weight", hidden);
  add("lm_head.weight", vocab, hidden);
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: hidden,
    intermediate_size: ffn,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: heads,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: false,
    vocab_size: vocab,
    bos_token_id: 1,
    eos_token_id: 2,
    torch_dtype: "float32",
  };
  return {
    location: "random",
    config,
    tensors,
    // Vectors, read whole, are ones; matrices are not looked at.
    read: async (name, _offset, length, into) =>
      into ??
      new Uint8Array(length === undefined ? new Float32Array(tensors.get(name).shape[0]).fill(1).buffer : length),
    readJson: async () => undefined,
    close: async () => {},
  };
}

/**
 * From now on `pack` gives tiles of this format one of eight random contents, packed once per shape.
 * @returns what undoes it
 */
async function packRandomTiles(backend, id) {
  // The backend checks the kernels of a format with matrices of its own when it meets it first.
  const read = async (_start, _count, into) => into.fill(0);
  backend.freeMatrix(await backend.loadMatrix([{ name: "first", rows: 32, cols: 32, dtype: "F32", read }], id));
  const format = weightFormats[id];
  const { pack } = format;
  const random = new Random(1);
  const known = new Map();
  let turn = 0;
  format.pack = (_weights, rows, cols) => {
    const key = `${rows} ${cols}`;
    if (!known.has(key)) {
      const tiles = Array.from({ length: 8 }, () => {
        // Uniform with the standard deviation 1/√cols.
        const scale = Math.sqrt(12 / cols);
        return pack.call(
          format,
          Float32Array.from({ length: rows * cols }, () => (random.uniform() - 0.5) * scale),
          rows,
          cols,
        );
      });
      known.set(key, tiles);
    }
    return known.get(key)[turn++ % 8];
  };
  return () => {
    format.pack = pack;
  };
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

async function measure(weights) {
  const backend = await createBackend();
  const undo = [];
  for (const id of new Set(["bf16", weights])) undo.push(await packRandomTiles(backend, id));
  const started = performance.now();
  const model = await loadModel(randomCheckpoint(), backend, { weights, structure: "dense" });
  await backend.flush();
  console.log(
    `${weights}: ${backend.info.description}; loaded in ${((performance.now() - started) / 1000).toFixed(1)} s`,
  );
  for (const restore of undo) restore();
  const ids = Uint32Array.from(promptIds(prompt, vocab));

  let enqueueMs = 0;
  async function step(ids, cache, start, thresholds) {
    const sparseFrom = ids.length > 1 ? start + ids.length : start;
    const begun = performance.now();
    const logits = await model.forward(ids, cache, start, { logits: "last", sparseFrom, thresholds });
    enqueueMs += performance.now() - begun;
    const [top] = await backend.topK(logits, 1);
    backend.release(logits);
    return top.ids;
  }

  async function enqueue(token, cache, start, thresholds) {
    const begun = performance.now();
    const logits = await model.forward(token, cache, start, { logits: "last", thresholds });
    const chosen = backend.choose(logits);
    backend.release(logits);
    enqueueMs += performance.now() - begun;
    return chosen;
  }

  const magnitudes = Array.from({ length: layers }, () => ({}));
  const readers = [...readersOf(model.config.spec.blocks[0])].filter(([, roles]) => roles.length > 0);
  const tap = {
    sites: readers.map(([site]) => site),
    async onActivation(layer, site, activation) {
      magnitudes[layer][site] = (await backend.read(activation)).map(Math.abs).sort();
    },
  };
  const calibrationCache = model.createCache(32);
  backend.release(await model.forward(ids.subarray(0, 32), calibrationCache, 0, { logits: "last", tap }));
  calibrationCache[Symbol.dispose]();
  const quantile = (sorted, p) => sorted[Math.floor(p * (sorted.length - 1))];
  const variants = [{ sparsity: 0 }].concat(
    sparsities.map((sparsity) => ({
      sparsity,
      thresholds: {
        maps: magnitudes.map((bySite) =>
          Object.fromEntries(
            readers.flatMap(([site, roles]) => roles.map((role) => [role, quantile(bySite[site], sparsity)])),
          ),
        ),
      },
    })),
  );

  /** As `generate` does: the next token is enqueued before this one is read. */
  async function decode(first, cache, thresholds, count = tokens) {
    let chosen = await enqueue(first, cache, prompt, thresholds);
    for (let t = 1; t <= count; t++) {
      const later = t < count ? await enqueue(chosen, cache, prompt + t, thresholds) : undefined;
      await chosen.read();
      chosen = later;
    }
  }

  const decodes = variants.map(() => []);
  const prefills = [];
  let parameters = 0;
  for (let round = -1; round < rounds; round++) {
    for (const [i, { thresholds }] of variants.entries()) {
      const cache = model.createCache(prompt + tokens);
      const begun = performance.now();
      const next = await step(ids, cache, 0, thresholds);
      const first = performance.now();
      backend.takeCounters();
      enqueueMs = 0;
      const decoding = performance.now();
      const calls = await counted(() => decode(next, cache, thresholds));
      const elapsedMs = performance.now() - decoding;
      const counters = backend.takeCounters();
      cache[Symbol.dispose]();
      if (round < 0) continue; // warming up
      prefills.push(first - begun);
      decodes[i].push({ msPerToken: elapsedMs / tokens, enqueueMs: enqueueMs / tokens, ...calls, ...counters });
    }
  }
  const gpuTimes = [];
  let prefillGpuMs;
  for (const { thresholds } of variants) {
    const cache = model.createCache(prompt + tokens);
    let next;
    prefillGpuMs = await gpuMs(async () => {
      next = await step(ids, cache, 0, thresholds);
    });
    gpuTimes.push(await gpuMs(() => decode(next, cache, thresholds)));
    cache[Symbol.dispose]();
  }
  const kernelTimes = [];
  if (values.kernels && backend.timeKernels !== undefined) {
    const cache = model.createCache(prompt + tokens);
    let next;
    const phase = async (name, work) => {
      const times = await backend.timeKernels(work);
      kernelTimes.push({ phase: name, times });
      for (const { kernel, dispatches, ms } of times ?? []) {
        console.log(`${weights} ${name}: ${ms.toFixed(3)} ms in ${dispatches} × ${kernel}`);
      }
    };
    await phase("prompt", async () => {
      next = await step(ids, cache, 0);
    });
    await phase("8 tokens", () => decode(next, cache, undefined, 8));
    cache[Symbol.dispose]();
  }
  // Two operations per weight of a block and token; the head runs for the last row alone.
  parameters = layers * (4 * hidden * hidden + 3 * hidden * ffn);
  const prefillMs = median(prefills);
  const results = {
    weights,
    prefillMs,
    prefillTokensPerSecond: (1000 * prompt) / prefillMs,
    // null where the GPU keeps no timestamps.
    prefillGpuMs: prefillGpuMs ?? null,
    kernelTimes,
    prefillTflops: (2 * parameters * prompt) / prefillMs / 1e9,
    decode: variants.map(({ sparsity }, i) => {
      const msPerToken = median(decodes[i].map((d) => d.msPerToken));
      const { weightBytesRead, inputs, inputsSkipped, dispatches, passes, submits } = decodes[i][0];
      return {
        sparsity,
        skipped: inputs === 0 ? 0 : inputsSkipped / inputs,
        msPerToken,
        // Of it, until the commands of a token were recorded.
        enqueueMs: median(decodes[i].map((d) => d.enqueueMs)),
        cpuMsPerToken: median(decodes[i].map((d) => d.cpuMs)) / tokens,
        // null where the GPU keeps no timestamps.
        gpuMsPerToken: gpuTimes[i] === undefined ? null : gpuTimes[i] / tokens,
        dispatchesPerToken: dispatches / tokens,
        passesPerToken: passes / tokens,
        submitsPerToken: submits / tokens,
        tokensPerSecond: 1000 / msPerToken,
        bytesPerToken: weightBytesRead / tokens,
        gigabytesPerSecond: weightBytesRead / tokens / msPerToken / 1e6,
      };
    }),
  };
  console.log(JSON.stringify(results, undefined, 1));
  model[Symbol.dispose]();
  backend[Symbol.dispose]();
  return results;
}

const all = [];
for (const weights of values.weights.split(",")) all.push(await measure(weights));
if (values.out !== undefined) writeFileSync(values.out, JSON.stringify(all));
process.exit(0); // a live GPU object would keep the process running
