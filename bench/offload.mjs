// What a model that is larger than memory reads for a decoded token, by what is done about it: the table of docs/offload.md. Bytes and
// reads are counted and the same everywhere; times are of this machine, whose file cache holds the file, and only their ratios say
// something:
//   npm run build && node bench/offload.mjs PREDICTED-RELU-MODEL --resident-bytes 12000000 [--tokens 64] [--text FILE]
// The model is what rarefy predict has written.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { directoryFiles } from "../dist/io/index.node.js";
import { offloadToDirectory } from "../dist/jobs/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    "resident-bytes": { type: "string" },
    tokens: { type: "string", default: "64" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    window: { type: "string", default: "4" },
    threads: { type: "string", default: "1" },
    repeats: { type: "string", default: "3" },
  },
});
const source = directoryFiles(positionals[0]);
const tokenizer = await loadTokenizer(source);
const count = Number(values.tokens);
const { tokens } = await tokenizeText(tokenizer, readFileSync(values.text, "utf8"), { maxTokens: count });
const residentBytes = Number(values["resident-bytes"]);
const scratch = mkdtempSync(join(tmpdir(), "rarefy-offload-"));
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

try {
  const [together, apart] = [join(scratch, "bundled"), join(scratch, "parts")];
  const { byteLength } = await offloadToDirectory(source, together);
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
    ["exact: nothing predicted, gates in memory", together, { clusterUnits: 64 }],
  ];
  const results = rows.map(() => ({ bytes: 0, reads: 0, waitMs: [], elapsedMs: [] }));
  for (let round = 0; round < Number(values.repeats); round++) {
    for (const [r, [, directory, options]] of rows.entries()) {
      const opened = await openModel(directoryFiles(directory), {
        threads: Number(values.threads),
        offload: { residentBytes, ...options },
      });
      const { model } = opened;
      const cache = model.createCache(count);
      const result = results[r];
      model.offload.takeCounters();
      const sinceMs = performance.now();
      for (let t = 0; t < count; t++) {
        const logits = await model.forward(tokens.subarray(t, t + 1), cache, t);
        await model.backend.topK(logits, 1);
        model.backend.release(logits);
      }
      result.elapsedMs.push(performance.now() - sinceMs);
      const counters = model.offload.takeCounters();
      Object.assign(result, { bytes: counters.bytesRead / count, reads: counters.reads / count });
      result.waitMs.push(counters.waitMs / count);
      cache[Symbol.dispose]();
      if (round === 0 && r === 0)
        console.log(JSON.stringify({ ...model.offload.plan, fileBytes: byteLength, residentBytes }));
      opened[Symbol.dispose]();
    }
  }
  const naive = median(results[0].elapsedMs);
  console.log("what is done | kB/token | reads/token | waits ms/token | speed");
  for (const [r, [name]] of rows.entries()) {
    const { bytes, reads, waitMs, elapsedMs } = results[r];
    const speed = (naive / median(elapsedMs)).toFixed(2);
    console.log(
      `${name} | ${(bytes / 1000).toFixed(1)} | ${reads.toFixed(1)} | ${median(waitMs).toFixed(2)} | ${speed} x`,
    );
  }
} finally {
  rmSync(scratch, { recursive: true });
}
