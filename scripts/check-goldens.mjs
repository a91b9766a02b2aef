// Perplexity of a reference checkpoint, dense and under TEAL, against test/golden/reference.json, on the built package:
//   npm run build && node scripts/check-goldens.mjs [DIRECTORY ...]
// A directory is named after its checkpoint (tiny-6m, relu-6m, ref-28m); default models/tiny-6m. Exit code 1 when a
// dense figure is more than 0.1 % off, a uniform TEAL figure more than 1 %, or greedy worse than uniform.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { evaluateQuality } from "../dist/eval/index.js";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openBackend } from "../dist/kernels/index.js";
import { loadModel } from "../dist/model/index.js";
import { calibrateActivationSparsity, toThresholds } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "./options.mjs";

const { values: options, positionals } = readOptions({
  allowPositionals: true,
  options: {
    golden: { type: "string", default: "test/golden/reference.json" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    calibration: { type: "string", default: "models/text/calib.txt" },
    backend: { type: "string" },
    threads: { type: "string" },
    weights: { type: "string", default: "f32" },
    windows: { type: "string", default: "40" },
    "calibration-windows": { type: "string", default: "32" },
    levels: { type: "string", default: "0.25,0.4,0.5,0.6" },
    greedy: { type: "string", default: "0.4,0.5" },
    "greedy-base": { type: "string", default: "0.05" },
    "greedy-tokens": { type: "string", default: "512" },
  },
});

const numbers = (list) => (list === "" ? [] : list.split(",").map(Number));
const tolerance = { dense: 0.001, teal: 0.01 };
const golden = JSON.parse(readFileSync(options.golden, "utf8")).models;
const onProgress = ({ stage, done, total, unit, etaMs, detail = "" }) => {
  const eta = etaMs === undefined ? "" : `, ${Math.ceil(etaMs / 1000)} s left`;
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${stage} ${detail}: ${done} of ${total} ${unit}${eta}`);
};
const write = (text) => process.stdout.write(`${process.stderr.isTTY ? "\r\x1b[K" : ""}${text}\n`);

let failures = 0;
for (const directory of positionals.length > 0 ? positionals : ["models/tiny-6m"]) {
  const name = basename(directory);
  const expected = golden[name]?.ppl;
  if (expected === undefined) throw new Error(`${options.golden} has no model ${name}`);

  const backend = await openBackend(options.backend, {
    ...(options.threads && { threads: Number(options.threads) }),
  });
  const files = directoryFiles(directory);
  const checkpoint = await openCheckpoint(files);
  const tokenizer = await loadTokenizer(files);
  const model = await loadModel(checkpoint, backend, { weights: options.weights });
  const [text, calibrationText] = await Promise.all(
    [options.text, options.calibration].map((path) => tokenizeText(tokenizer, readFileSync(path, "utf8"))),
  );
  write(`${name}, ${options.weights} weights, ${backend.info.description}`);

  const calibrate = async (allocation, sparsities) => {
    if (sparsities.length === 0) return [];
    const startMs = performance.now();
    const { records } = await calibrateActivationSparsity(model, calibrationText, {
      sparsities,
      allocation,
      calibrationWindows: Number(options["calibration-windows"]),
      greedyBase: Number(options["greedy-base"]),
      greedyTokens: Number(options["greedy-tokens"]),
      onProgress,
    });
    write(`  ${allocation} calibration took ${((performance.now() - startMs) / 1000).toFixed(0)} s`);
    return records.map((record) => ({
      name: `teal-${allocation}-${Math.round(record.sparsity * 100)}`,
      model,
      thresholds: toThresholds(record),
    }));
  };
  const variants = [
    { name: "dense", model },
    ...(await calibrate("uniform", numbers(options.levels))),
    ...(await calibrate("greedy", numbers(options.greedy))),
  ];

  const startMs = performance.now();
  const qualities = await evaluateQuality(variants, text, { maxWindows: Number(options.windows), onProgress });
  write(`  evaluation took ${((performance.now() - startMs) / 1000).toFixed(0)} s, ${qualities[0].windows} windows`);
  const measured = new Map(qualities.map((quality) => [quality.name, quality.perplexity]));
  for (const { name: variant, perplexity, activationSparsity, divergence } of qualities) {
    const uniform = variant.replace("greedy", "uniform");
    // A greedy row has no golden figure; it must not be worse than the uniform one measured beside it.
    const reference = variant === uniform ? expected[variant] : measured.get(uniform);
    const difference = perplexity / reference - 1;
    const ok =
      variant === uniform ? Math.abs(difference) <= tolerance[variant === "dense" ? "dense" : "teal"] : difference <= 0;
    if (!ok) failures++;
    write(
      [
        `  ${variant.padEnd(16)}`,
        perplexity.toFixed(4).padStart(9),
        variant === uniform ? "golden" : "uniform",
        reference?.toFixed(4).padStart(9),
        `${(difference * 100).toFixed(3)} %`.padStart(10),
        `zero inputs ${(activationSparsity * 100).toFixed(1)} %`.padStart(19),
        divergence === undefined ? "" : `KL ${divergence.klDivergence.toFixed(4)}`,
        divergence === undefined ? "" : `top 1 ${(divergence.top1Agreement * 100).toFixed(1)} %`,
        ok ? "" : "  ← out of tolerance",
      ].join("  "),
    );
  }
  await checkpoint.close();
  backend[Symbol.dispose]();
}
process.exitCode = failures > 0 ? 1 : 0;
