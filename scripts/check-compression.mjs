// Perplexity of a reference checkpoint after one-shot compression, against test/golden/reference.json, on the built package:
//   npm run build && node scripts/check-compression.mjs DIRECTORY CANDIDATE ...
// A directory is named after its checkpoint (tiny-6m, ref-28m). A candidate is METHOD-SPARSITY (sparsegpt-50),
// METHOD-KEEP:GROUP (wanda-2:4) or QUANTISER-BITS (gptq-4); options as JSON after an @. Exit code 1 when a figure lies
// further from its golden one than the tolerance. Magnitude is counted as the golden figures are: bf16 weights tie.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { parseArgs } from "node:util";
import { parsePattern, pruneMethods, quantizeMethods } from "../dist/compress/index.js";
import { evaluateQuality } from "../dist/eval/index.js";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openBackend } from "../dist/kernels/index.js";
import { loadModel } from "../dist/model/index.js";
import { compressBlockwise, replaceTensors } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    golden: { type: "string", default: "test/golden/reference.json" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    calibration: { type: "string", default: "models/text/calib.txt" },
    "calibration-windows": { type: "string", default: "64" },
    windows: { type: "string", default: "40" },
  },
});
const [directory, ...candidates] = positionals;
const expected = JSON.parse(readFileSync(options.golden, "utf8")).models[basename(directory)].ppl;
const tolerances = { magnitude: 0.005, wanda: 0.01, sparsegpt: 0.02, rtn: 0.005 };

const files = directoryFiles(directory);
const checkpoint = await openCheckpoint(files);
const tokenizer = await loadTokenizer(files);
const [text, calibration] = await Promise.all(
  [options.text, options.calibration].map((path) => tokenizeText(tokenizer, readFileSync(path, "utf8"))),
);

/** What a candidate does to a layer. */
async function compressor(id, parameter, extra) {
  if (Object.hasOwn(pruneMethods, id)) {
    const { method } = await pruneMethods[id]();
    const pattern = parameter.includes(":")
      ? parsePattern(parameter)
      : parsePattern("unstructured", Number(parameter) / 100);
    const parsed = method.options.parse({ ...(id === "magnitude" && { counting: "below" }), ...extra });
    return {
      statistics: method.needs(parsed),
      compress: (layer, statistics) => method.prune(layer, statistics, pattern, parsed).weight,
    };
  }
  const { method } = await quantizeMethods[id]();
  const parsed = method.options.parse({ bits: Number(parameter), ...extra });
  return {
    statistics: method.needs(parsed),
    compress: (layer, statistics) => method.quantize(layer, statistics, parsed).weight,
  };
}

let failures = 0;
for (const candidate of candidates) {
  const [name, extra = "{}"] = candidate.split("@");
  const [id, parameter] = name.split("-");
  const startMs = performance.now();
  const weights = new Map();
  const elapsedMs = { forward: 0, statistics: 0, compress: 0 };
  if (id !== "dense") {
    const job = await compressor(id, parameter, JSON.parse(extra));
    const windows = Number(options["calibration-windows"]);
    for await (const block of compressBlockwise(checkpoint, {
      tokens: calibration.tokens,
      windows,
      window: 512,
      ...job,
    })) {
      for (const [tensor, replaced] of block.weights) weights.set(tensor, replaced);
      for (const part of Object.keys(elapsedMs)) elapsedMs[part] += block.elapsedMs[part];
    }
  }
  const compressMs = performance.now() - startMs;

  const backend = await openBackend();
  const model = await loadModel(replaceTensors(checkpoint, weights), backend, { weights: "f32" });
  const [{ perplexity }] = await evaluateQuality([{ name, model }], text, { maxWindows: Number(options.windows) });
  model[Symbol.dispose]();
  backend[Symbol.dispose]();

  const reference = expected[id === "rtn" ? `rtn-int${parameter}-g32` : name];
  const difference = perplexity / reference - 1;
  const tolerance = parameter === "80" ? 0.05 : (tolerances[id] ?? 0.001);
  const ok = reference === undefined || Math.abs(difference) <= tolerance;
  if (!ok) failures++;
  const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
  const parts = Object.entries(elapsedMs).map(([part, ms]) => `${part} ${seconds(ms)}`);
  console.log(
    [
      candidate.padEnd(16),
      perplexity.toFixed(4).padStart(10),
      reference === undefined ? "no golden figure".padStart(22) : `golden ${reference.toFixed(4)}`.padStart(18),
      reference === undefined ? "" : `${(difference * 100).toFixed(3)} %`.padStart(9),
      `compressed in ${seconds(compressMs)} (${parts.join(", ")})`,
      `peak ${(process.resourceUsage().maxRSS / 1024).toFixed(0)} MiB`,
      ok ? "" : "← out of tolerance",
    ].join("  "),
  );
}
await checkpoint.close();
process.exitCode = failures > 0 ? 1 : 0;
