// Perplexity of a reference checkpoint after one-shot compression, against test/golden/reference.json, on the built package:
//   npm run build && node scripts/check-compression.mjs DIRECTORY CANDIDATE ...
// A directory is named after its checkpoint (tiny-6m, ref-28m). A candidate is METHOD-SPARSITY (sparsegpt-50),
// METHOD-KEEP:GROUP (wanda-2:4), QUANTISER-BITS (gptq-4), FACTORS-PERCENT (svdllm-60) or smoothquant; options as JSON after
// an @. Exit code 1 when a figure lies further from its golden one than the tolerance. Results are stored in f32, and
// magnitude is counted as the golden figures are: bf16 weights tie.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { lowRankMethods, parsePattern, parseRecipe, pruneMethods, scaleMethods } from "../dist/compress/index.js";
import { evaluateQuality } from "../dist/eval/index.js";
import { memoryFiles, openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openBackend } from "../dist/kernels/index.js";
import { loadModel } from "../dist/model/index.js";
import { memoryWorkspace, planCompression, runCompression } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "./options.mjs";

const { values: options, positionals } = readOptions({
  allowPositionals: true,
  options: {
    golden: { type: "string", default: "test/golden/reference.json" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    calibration: { type: "string", default: "models/text/calib.txt" },
    "calibration-windows": { type: "string", default: "64" },
    windows: { type: "string", default: "40" },
    threads: { type: "string", default: "2" },
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

/** The stage of a candidate. */
function stageOf(id, parameter, options) {
  if (Object.hasOwn(pruneMethods, id)) {
    const pattern = parameter.includes(":") ? parameter : parsePattern("unstructured", Number(parameter) / 100);
    const counting = id === "magnitude" && { counting: "below" };
    return { type: "prune", method: id, pattern, options: { ...counting, ...options } };
  }
  if (Object.hasOwn(lowRankMethods, id))
    return { type: "lowRank", method: id, keepRatio: Number(parameter) / 100, options };
  if (Object.hasOwn(scaleMethods, id)) {
    const targets = ["q", "k", "v", "gate", "up"].map((name) => `**.${name}_proj.weight`);
    return { type: "scale", method: id, options, targets };
  }
  return { type: "quantize", method: id, options: { bits: Number(parameter), ...options } };
}

/** The files of the compressed model, and where the time went. */
async function compressed(stage) {
  const recipe = parseRecipe(
    {
      version: 1,
      calibration: { windows: Number(options["calibration-windows"]), measureError: false },
      stages: [stage],
    },
    "candidate",
  );
  const threads = Number(options.threads);
  const job = { recipe, calibration, store: "dense", dtype: "F32", version: "check", threads };
  const result = new Map();
  const plan = await planCompression(checkpoint, job);
  const { elapsedMs } = await runCompression(
    checkpoint,
    plan,
    { workspace: memoryWorkspace(result), companions: [] },
    job,
  );
  return { elapsedMs, files: memoryFiles("result", result) };
}

let failures = 0;
for (const candidate of candidates) {
  const [name, extra = "{}"] = candidate.split("@");
  const [id, parameter] = name.split("-");
  const startMs = performance.now();
  const { elapsedMs, files: result } =
    id === "dense" ? { elapsedMs: {} } : await compressed(stageOf(id, parameter, JSON.parse(extra)));
  const compressMs = performance.now() - startMs;

  const opened = result === undefined ? checkpoint : await openCheckpoint(result);
  const backend = await openBackend(undefined, { threads: Number(options.threads) });
  const model = await loadModel(opened, backend, { weights: "f32" });
  const [{ perplexity }] = await evaluateQuality([{ name, model }], text, { maxWindows: Number(options.windows) });
  model[Symbol.dispose]();
  backend[Symbol.dispose]();

  const reference = expected[id === "rtn" ? `rtn-int${parameter}-g32` : name];
  const difference = perplexity / reference - 1;
  const tolerance = parameter === "80" ? 0.05 : (tolerances[id] ?? 0.001);
  const ok = reference === undefined || Math.abs(difference) <= tolerance;
  if (!ok) failures++;
  const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`;
  const parts = Object.entries(elapsedMs)
    .filter(([, ms]) => ms >= 50)
    .map(([part, ms]) => `${part} ${seconds(ms)}`);
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
