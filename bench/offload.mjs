// What a model that is larger than memory reads for a decoded token, by what is done about it: the tables of docs/offload.md. Bytes and
// reads are counted and the same everywhere; times are of this machine:
//   npm run build && node bench/offload.mjs PREDICTED-RELU-MODEL --resident-bytes 12000000 [--tokens 64] [--text FILE]
// The model is what rarefy predict has written. Without one, a random ReLU model of 0.4 GB with 90 % zeros is made and a third of its
// bytes allowed (--resident-share); the figures of the second table. --cold drops the files from the page cache before each row, so that
// reads are of the disk (Linux, GNU dd).
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { directoryFiles } from "../dist/io/index.node.js";
import { offloadToDirectory } from "../dist/jobs/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    "resident-bytes": { type: "string" },
    tokens: { type: "string", default: "64" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    calib: { type: "string", default: "models/text/calib.txt" },
    window: { type: "string", default: "4" },
    threads: { type: "string", default: "1" },
    repeats: { type: "string", default: "3" },
    "resident-share": { type: "string", default: "0.3333" },
    "naive-tokens": { type: "string" },
    cold: { type: "boolean", default: false },
    out: { type: "string", default: join(import.meta.dirname, ".models/relu-0.2b") },
  },
});
const model = positionals[0] ?? randomModel();
const source = directoryFiles(model);
const tokenizer = await loadTokenizer(source);
const count = Number(values.tokens);
const { tokens } = await tokenizeText(tokenizer, readFileSync(values.text, "utf8"), { maxTokens: count });
const modelBytes = readdirSync(model)
  .filter((name) => /^model.*safetensors$/.test(name))
  .reduce((sum, name) => sum + statSync(join(model, name)).size, 0);
const residentBytes = Number(values["resident-bytes"] ?? Math.floor(modelBytes * Number(values["resident-share"])));
const scratch = mkdtempSync(join(tmpdir(), "rarefy-offload-"));
/** 0.2 G parameters, of which nine tenths are neurons. */
function randomModel() {
  const shape =
    "--layers 12 --hidden 768 --ffn 6144 --heads 12 --kv-heads 4 --vocab 512 --tied --relu-zeros 0.9 --gate-rank 28";
  if (!existsSync(join(values.out, "config.json"))) {
    const script = join(import.meta.dirname, "random-model.mjs");
    execFileSync(process.execPath, [script, "--out", values.out, ...shape.split(" ")], { stdio: "inherit" });
  }
  return values.out;
}

/** Lets the kernel forget what it has read of the bundles. */
function dropFromCache(directory) {
  const file = join(directory, "offload.bin");
  execFileSync("sync", [file]);
  execFileSync("dd", [`if=${file}`, "iflag=nocache", "count=0", "status=none"]);
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

try {
  const [together, apart] = [join(scratch, "bundled"), join(scratch, "parts")];
  const hot = join(scratch, "counted");
  const { byteLength } = await offloadToDirectory(source, together);
  const counted = await tokenizeText(tokenizer, readFileSync(values.calib, "utf8"), { maxTokens: 512 });
  const calibration = { text: counted, window: 128, windows: 4, threads: Number(values.threads) };
  await offloadToDirectory(source, hot, { calibration });
  await offloadToDirectory(source, apart, { bundled: false });
  const all = -1000;
  const rows = [
    ["naive: every neuron, every token", apart, { predict: all, window: 0, pipelined: false }],
    ["predicted neurons only", apart, { predict: 0, window: 0, pipelined: false }],
    [
      `and those of the last ${values.window} tokens stay`,
      apart,
      { predict: 0, window: Number(values.window), pipelined: false },
    ],
    ["and a neuron is one read", together, { predict: 0, window: Number(values.window), pipelined: false }],
    ["and reads go on behind arithmetic", together, { predict: 0, window: Number(values.window), clusterUnits: 64 }],
    ["and they stay while there is room", together, { predict: 0, clusterUnits: 64 }],
    ["and those used most always stay", hot, { predict: 0, clusterUnits: 64 }],
    ["exact: nothing predicted, gates in memory", together, { clusterUnits: 64 }],
  ];
  const results = rows.map(() => ({ bytes: 0, reads: 0, waitMs: [], elapsedMs: [] }));
  for (let round = 0; round < Number(values.repeats); round++) {
    for (const [r, [, directory, options]] of rows.entries()) {
      const how = { threads: Number(values.threads), offload: { residentBytes, ...options } };
      const opened = await openModel(directoryFiles(directory), how).catch((error) => error);
      if (opened instanceof Error) {
        results[r].refused = opened.message;
        continue;
      }
      const { model } = opened;
      // What every neuron is read for takes long, and the same for every token.
      const steps = r === 0 && values["naive-tokens"] ? Number(values["naive-tokens"]) : count;
      const cache = model.createCache(count);
      const result = results[r];
      if (values.cold) dropFromCache(directory);
      model.offload.takeCounters();
      const sinceMs = performance.now();
      for (let t = 0; t < steps; t++) {
        const logits = await model.forward(tokens.subarray(t, t + 1), cache, t);
        await model.backend.topK(logits, 1);
        model.backend.release(logits);
      }
      result.elapsedMs.push((performance.now() - sinceMs) / steps);
      const counters = model.offload.takeCounters();
      Object.assign(result, { bytes: counters.bytesRead / steps, reads: counters.reads / steps });
      result.waitMs.push(counters.waitMs / steps);
      cache[Symbol.dispose]();
      if (round === 0 && r === 0)
        console.log(JSON.stringify({ ...model.offload.plan, modelBytes, fileBytes: byteLength, residentBytes }));
      opened[Symbol.dispose]();
      console.error(`round ${round + 1}, row ${r + 1}: ${result.elapsedMs.at(-1).toFixed(0)} ms/token`);
    }
  }
  console.log(
    "what is done | kB/token | reads/token | waits ms/token | tokens/s (lowest - highest) | speed (of the same round)",
  );
  for (const [r, [name]] of rows.entries()) {
    const { bytes, reads, waitMs, elapsedMs, refused } = results[r];
    if (refused !== undefined) {
      console.log(`${name} | does not fit: ${refused}`);
      continue;
    }
    const perSecond = elapsedMs.map((ms) => 1000 / ms).sort((a, b) => a - b);
    const speeds = elapsedMs.map((ms, round) => results[0].elapsedMs[round] / ms);
    const [most, least] = [perSecond.at(-1).toFixed(1), perSecond[0].toFixed(1)];
    console.log(
      `${name} | ${(bytes / 1000).toFixed(1)} | ${reads.toFixed(1)} | ${median(waitMs).toFixed(2)} | ` +
        `${median(perSecond).toFixed(1)} (${least} - ${most}) | ${median(speeds).toFixed(2)} x`,
    );
  }
} finally {
  rmSync(scratch, { recursive: true });
}
