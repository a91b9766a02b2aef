// What sparsity and quantisation cost and give on the models of models.mjs: the table of docs/real-models.md.
//
//   node real/compress.mjs [MODEL…] [--windows 40] [--calibration-windows 64] [--threads 2] [--only ID,ID] [--no-speed]
//
// Candidates are made by the rarefy command, into .models/real; those that are there already are not made again, and one that
// was stopped goes on. Quality is measured in this process, several candidates beside the dense model at once; decode speed in
// one run of `rarefy bench`, in turns. Writes .models/real/table-MODEL.json and prints the table. Needs the built package.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { evaluateQuality } from "../../dist/eval/index.js";
import { resolveModel } from "../../dist/io/index.node.js";
import { openModel } from "../../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../../dist/text/index.js";
import { beginToken } from "../../dist/text/internal.js";
import { describeMachine } from "../machine.mjs";
import { fetchModel } from "./fetch.mjs";
import { chosen, folder } from "./models.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  allowNegative: true,
  options: {
    window: { type: "string", default: "512" },
    windows: { type: "string", default: "40" },
    "calibration-windows": { type: "string", default: "64" },
    threads: { type: "string", default: "2" },
    only: { type: "string" },
    speed: { type: "boolean", default: true },
  },
});
const [window, maxWindows, threads] = [values.window, values.windows, values.threads].map(Number);
const main = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const evaluationText = readFileSync(
  fileURLToPath(new URL("../../models/text/books-eval.txt", import.meta.url)),
  "utf8",
);

const compress = (recipe) => ["compress", "--recipe", recipe, "--calib", "tiny-6m:calib"];
const teal = (sparsity) => ["calibrate", "--sparsity", `${sparsity}`, "--text", "tiny-6m:calib"];
/** By their names in the table, how each is made. */
const candidates = {
  "teal-25": { title: "TEAL, 25 % of inputs", make: teal(0.25) },
  "teal-40": { title: "TEAL, 40 %", make: teal(0.4) },
  "teal-50": { title: "TEAL, 50 %", make: teal(0.5) },
  "sparsegpt-50": { title: "SparseGPT, half of the weights", make: compress("sparsegpt-50") },
  "wanda-50": { title: "Wanda, half of the weights", make: compress("wanda-50") },
  "sparsegpt-2:4": { title: "SparseGPT, 2:4", make: compress("sparsegpt-2:4") },
  "wanda-2:4": { title: "Wanda, 2:4", make: compress("wanda-2:4") },
  "rtn-8": { title: "int8, rounded", make: compress("rtn-8") },
  "rtn-4": { title: "int4, rounded", make: ["quantize", "--method", "rtn", "--bits", "4"] },
  "gptq-4": { title: "int4, GPTQ", make: compress("gptq-4") },
};
/** Models in memory beside the dense one. */
const atOnce = 5;

const rarefy = (args) =>
  execFileSync(process.execPath, [main, ...args, "--json", "--quiet", "--threads", `${threads}`], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "inherit"],
    maxBuffer: 2 ** 28,
  });

async function tableOf(id, model) {
  const file = await fetchModel(model);
  const names = Object.keys(candidates).filter((name) => values.only?.split(",").includes(name) ?? true);
  const outputs = new Map(names.map((name) => [name, join(folder, `${id}-${name.replace(":", "of")}`)]));
  for (const [name, output] of outputs) {
    if (existsSync(output)) continue;
    const [command, ...how] = candidates[name].make;
    process.stderr.write(`${id}: ${command} ${name}\n`);
    const begin = model.begin ? ["--bos"] : [];
    const windows = ["--calibration-windows", values["calibration-windows"], ...begin];
    const calibrates = how.some((argument) => argument === "--calib" || argument === "--text");
    rarefy([command, file, ...how, ...(calibrates ? windows : []), "-o", output]);
  }

  const files = await resolveModel(file);
  const tokenizer = await loadTokenizer(files);
  const text = await tokenizeText(tokenizer, evaluationText, { maxTokens: maxWindows * window + 1 });
  const begin = model.begin ? beginToken(tokenizer) : undefined;
  const dense = await openModel(files, { threads });
  const rows = new Map();
  for (let start = 0; start < names.length; start += atOnce) {
    const some = names.slice(start, start + atOnce);
    const opened = [];
    for (const name of some) opened.push(await openModel(await resolveModel(outputs.get(name)), { threads }));
    const variants = [dense, ...opened].map(({ model: loaded }, v) => ({
      name: v === 0 ? "dense" : some[v - 1],
      model: loaded,
      thresholds: loaded.thresholds,
    }));
    const qualities = await evaluateQuality(variants, text, { window, maxWindows, begin });
    for (const [v, { name, perplexity, activationSparsity, divergence }] of qualities.entries()) {
      const { weights } = variants[v].model;
      rows.set(name, { name, weights, perplexity, activationSparsity, divergence });
    }
    process.stderr.write(`${id}: ${rows.size - 1} of ${names.length} measured\n`);
    for (const one of opened) one[Symbol.dispose]();
  }
  dense[Symbol.dispose]();

  if (values.speed) {
    const measured = JSON.parse(rarefy(["bench", file, "--against", ...outputs.values()]));
    for (const [r, row] of measured.rows.entries()) {
      const { bytesPerToken, decodeTokensPerSecond } = row;
      Object.assign(rows.get(["dense", ...names][r]), { bytesPerToken, decodeTokensPerSecond });
    }
  }
  return {
    model: id,
    file: model.file,
    window,
    windows: maxWindows,
    begin,
    machine: describeMachine(),
    rows: [...rows.values()],
  };
}

/** A Markdown table. */
function format({ rows }) {
  const cells = rows.map(
    ({ name, weights, perplexity, activationSparsity, divergence, bytesPerToken, decodeTokensPerSecond }) => [
      candidates[name]?.title ?? "dense",
      weights,
      activationSparsity > 0 ? `${(100 * activationSparsity).toFixed(1)} %` : "",
      perplexity.toFixed(2),
      divergence?.klDivergence?.toFixed(3) ?? "",
      divergence?.top1Agreement ? `${(100 * divergence.top1Agreement).toFixed(1)} %` : "",
      bytesPerToken === undefined ? "" : `${(bytesPerToken / 1e6).toFixed(1)} MB`,
      decodeTokensPerSecond === undefined ? "" : decodeTokensPerSecond.median.toFixed(1),
    ],
  );
  const head = [
    "",
    "weights",
    "zero inputs",
    "perplexity",
    "KL from dense",
    "same top token",
    "read per token",
    "tokens/s",
  ];
  return [head, head.map((_, i) => (i < 2 ? "---" : "---:")), ...cells]
    .map((row) => `| ${row.join(" | ")} |`)
    .join("\n");
}

for (const [id, model] of chosen(positionals)) {
  const table = await tableOf(id, model);
  writeFileSync(join(folder, `table-${id}.json`), `${JSON.stringify(table, null, 2)}\n`);
  console.log(`${model.title}\n\n${format(table)}\n`);
}
