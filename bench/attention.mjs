// What attention patterns and cache policies save at long contexts: one layer of random weights, one thread, CPU time, which a busy
// machine disturbs least. The shares are counted by the backend (bytes of keys and values that had to be read), not computed.
//   npm run build && node bench/attention.mjs [--lengths 4096,8192,16384,32768] [--context 8192] [--repeats 1] [--only prefill,decode]
//                                             [--heads 2 --kv-heads 1] [--patterns "causal window:size=1024"]
// Prefill: a prompt of so many tokens through a layer of so many heads of 64 columns (32 and 4 are those of the 1.1B shape). Decode: 32
// tokens behind a prompt of --context tokens, with full caches and less. RAREFY_NATIVE=0 leaves native kernels out.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { directoryFiles } from "../dist/io/index.node.js";
import { openModel } from "../dist/pipeline/index.js";
import { parseAttention, parseKv, Sequence } from "../dist/runtime/index.js";
import { readOptions } from "../scripts/options.mjs";
import { promptIds } from "./prompt.mjs";

const { values } = readOptions({
  options: {
    lengths: { type: "string", default: "4096,8192,16384,32768" },
    context: { type: "string", default: "8192" },
    repeats: { type: "string", default: "1" },
    only: { type: "string", default: "prefill,decode" },
    heads: { type: "string", default: "2" },
    "kv-heads": { type: "string", default: "1" },
    /** The first one is what the others are compared with. */
    patterns: {
      type: "string",
      default:
        "causal window:size=1024 window:size=1024,sinks=64 longformer:window=1024,global=64 bigbird:block=64,global=2,window=8,random=8",
    },
  },
});
const patterns = values.patterns.split(" ");
const context = Number(values.context);
const policies = [
  "full",
  `h2o:budget=${Math.round(context / 5)}`,
  "int8",
  "int4",
  `h2o:budget=${Math.round(context / 5)},bits=8`,
];
const decoded = 32;
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

/** One layer whose attention outweighs the rest. */
async function openLayer(heads, kvHeads) {
  const name = `layer-${heads}-${kvHeads}-heads`;
  const directory = join(import.meta.dirname, ".models", name);
  if (!existsSync(join(directory, "config.json"))) {
    const shape = `--layers 1 --hidden ${64 * heads} --ffn 256 --heads ${heads} --kv-heads ${kvHeads} --vocab 512 --context 65536 --tied`;
    const script = join(import.meta.dirname, "random-model.mjs");
    execFileSync(process.execPath, [script, "--out", directory, ...shape.split(" ")], { stdio: "inherit" });
  }
  return openModel(directoryFiles(directory), { threads: 1 });
}

const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

/** Runs tokens behind those of a sequence. @returns CPU milliseconds and bytes of keys and values */
async function run(sequence, tokens) {
  const { backend } = sequence.model;
  backend.takeCounters();
  const sinceMs = cpuMs();
  const logits = await sequence.run(tokens, { chunk: 512 });
  await backend.topK(logits, 1);
  backend.release(logits);
  return { ms: cpuMs() - sinceMs, kvBytes: backend.takeCounters().kvBytesRead };
}

if (values.only.includes("prefill")) {
  const opened = await openLayer(Number(values.heads), Number(values["kv-heads"]));
  console.log(opened.model.backend.info.description);
  console.log("tokens | pattern | keys and values read | CPU s | CPU time | ");
  for (const length of values.lengths.split(",").map(Number)) {
    const tokens = Uint32Array.from(promptIds(length, 512));
    const rows = patterns.map((pattern) => ({ pattern, ms: [], kvBytes: 0 }));
    for (let round = 0; round < Number(values.repeats); round++) {
      for (const row of rows) {
        const sequence = new Sequence(opened.model, length, { attention: parseAttention(row.pattern) });
        const { ms, kvBytes } = await run(sequence, tokens);
        sequence[Symbol.dispose]();
        row.ms.push(ms);
        row.kvBytes = kvBytes;
      }
    }
    const [dense] = rows;
    for (const { pattern, ms, kvBytes } of rows) {
      const shares = [kvBytes / dense.kvBytes, median(ms.map((of, round) => of / dense.ms[round]))];
      const [read, time] = shares.map((share) => `${(100 * share).toFixed(1)} %`);
      console.log(`${length} | ${pattern} | ${read} | ${(median(ms) / 1000).toFixed(2)} | ${time}`);
    }
  }
  opened[Symbol.dispose]();
}

if (values.only.includes("decode")) {
  const opened = await openLayer(16, 16);
  const tokens = Uint32Array.from(promptIds(context + decoded, 512));
  const rows = policies.map((policy) => ({ policy, ms: [], kvBytes: 0, cacheBytes: 0 }));
  for (let round = 0; round < Number(values.repeats); round++) {
    for (const row of rows) {
      const sequence = new Sequence(opened.model, tokens.length, { kv: parseKv(row.policy) });
      await run(sequence, tokens.subarray(0, context));
      let [ms, kvBytes] = [0, 0];
      for (let t = context; t < tokens.length; t++) {
        const one = await run(sequence, tokens.subarray(t, t + 1));
        ms += one.ms / decoded;
        kvBytes += one.kvBytes / decoded;
      }
      row.ms.push(ms);
      Object.assign(row, { kvBytes, cacheBytes: sequence.byteLength });
      sequence[Symbol.dispose]();
    }
  }
  console.log(`policy at ${context} tokens | cache MB | keys and values read, MB/token | CPU ms/token | CPU time`);
  const [full] = rows;
  for (const { policy, ms, kvBytes, cacheBytes } of rows) {
    const time = median(ms.map((of, round) => of / full.ms[round]));
    console.log(
      `${policy} | ${(cacheBytes / 1e6).toFixed(1)} | ${(kvBytes / 1e6).toFixed(2)} | ${median(ms).toFixed(2)} | ${(100 * time).toFixed(1)} %`,
    );
  }
  opened[Symbol.dispose]();
}
