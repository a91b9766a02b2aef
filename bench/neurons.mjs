// What a ReLU model gains by leaving idle neurons out: columns of down alone, as every ReLU model does, or rows of up as well, which then
// lie one by one (rarefy offload), all of them in memory.
//   npm run build && node bench/neurons.mjs MODEL [--weights q8,q4] [--threads 1] [--tokens 64] [--text FILE] [--out DIR]
// All variants of a format are timed in turn in one run, and must give the same logits. CPU ms: of all threads, by token.
import { mkdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { measureSpeed } from "../dist/eval/index.js";
import { bundledText, directoryFiles, readText } from "../dist/io/index.node.js";
import { offloadToDirectory } from "../dist/jobs/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    weights: { type: "string", default: "bf16,q8,q4" },
    threads: { type: "string", default: "1" },
    tokens: { type: "string", default: "64" },
    repeats: { type: "string", default: "5" },
    text: { type: "string" },
    out: { type: "string", default: join(import.meta.dirname, ".models/neurons") },
    json: { type: "boolean", default: false },
  },
});
const [model] = positionals;
const source = directoryFiles(model);
const threads = Number(values.threads);
const text = await readText(values.text ?? bundledText("tiny-6m:eval"));
const { tokens } = await tokenizeText(await loadTokenizer(source), text, { maxTokens: 16 + Number(values.tokens) });
await mkdir(values.out, { recursive: true });

/** Whether two models give the same next-token logits, bit for bit. */
async function sameLogits(models) {
  const all = [];
  for (const model of models) {
    const cache = model.createCache(tokens.length);
    const rows = [];
    for (const [at, token] of tokens.subarray(0, 8).entries()) {
      const logits = await model.forward(Uint32Array.of(token), cache, at);
      rows.push(...new Uint32Array((await model.backend.read(logits)).buffer));
      model.backend.release(logits);
    }
    cache[Symbol.dispose]();
    all.push(rows);
  }
  return all[0].every((bits, i) => bits === all[1][i]);
}

const results = [];
for (const weights of values.weights.split(",")) {
  const bundles = join(values.out, `${basename(model)}-${weights}`);
  await offloadToDirectory(source, bundles, { weights });
  const whole = await openModel(source, { weights, threads });
  const rows = await openModel(directoryFiles(bundles), { weights, threads, offload: {} });
  const isSame = await sameLogits([whole.model, rows.model]);
  const variants = [
    { name: "nothing", model: whole.model, thresholds: "dense" },
    { name: "columns of down", model: whole.model },
    { name: "rows of up, columns of down", model: rows.model },
  ];
  const speeds = await measureSpeed(variants, tokens, {
    ...{ prefillTokens: 16, decodeTokens: Number(values.tokens), repeats: Number(values.repeats) },
    processorMs: () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
  });
  for (const one of [whole, rows]) one[Symbol.dispose]();
  for (const { name, decodeTokensPerSecond, bytesPerToken, cpuMsPerToken } of speeds) {
    results.push({ weights, name, decodeTokensPerSecond, bytesPerToken, cpuMsPerToken, isSame });
  }
}
if (values.json) console.log(JSON.stringify(results, undefined, 1));
else {
  console.log(
    "| weights | left out of idle neurons | MB by token | CPU ms by token | tokens/s | of dense | same logits |",
  );
  console.log("| --- | --- | ---: | ---: | ---: | ---: | --- |");
  for (const { weights, name, decodeTokensPerSecond, bytesPerToken, cpuMsPerToken, isSame } of results) {
    const dense = results.find((row) => row.weights === weights);
    const { median, min, max } = decodeTokensPerSecond;
    const speed = `${median.toFixed(1)} (${min.toFixed(1)} to ${max.toFixed(1)})`;
    const cells = [weights, name, (bytesPerToken / 1e6).toFixed(2), cpuMsPerToken.toFixed(2), speed];
    cells.push(`${(median / dense.decodeTokensPerSecond.median).toFixed(2)} ×`, isSame ? "yes" : "no");
    console.log(`| ${cells.join(" | ")} |`);
  }
}
