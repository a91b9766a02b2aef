// The five schemes of making a language model lighter, on one checkpoint, every cell measured here: quantisation, sparsification,
// distillation, sharing, low rank, and combinations of them.
//   npm run build && node bench/five-schemes.mjs MODEL --text train.txt --calib calib.txt --eval-text eval.txt [--steps 100] [--windows 10]
// Each scheme is applied in one shot, measured, and, where it learns, trained for the same number of tokens and measured again. Decoding
// is timed in turn on one thread. With --json the rows as data.
import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRecipe } from "../dist/compress/index.js";
import { evaluateQuality, measureSpeed } from "../dist/eval/index.js";
import { directoryFiles, readText } from "../dist/io/index.node.js";
import { compressToDirectory, shareLayersToDirectory, trainToDirectory } from "../dist/jobs/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { tokenizeDocuments } from "../dist/train/index.js";
import { readTrainingText } from "../dist/train/index.node.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    text: { type: "string" },
    calib: { type: "string" },
    "eval-text": { type: "string" },
    steps: { type: "string", default: "100" },
    rate: { type: "string", default: "1e-3" },
    windows: { type: "string", default: "10" },
    only: { type: "string" },
    json: { type: "boolean", default: false },
  },
});
const rtn = { type: "quantize", method: "rtn", options: { bits: 4, groupSize: 32 } };
const prune = { type: "prune", method: "sparsegpt", pattern: { type: "nm", keep: 2, group: 4 } };
const lowRank = { type: "lowRank", method: "svdllm", keepRatio: 0.5 };
const half = (layers) => ({ type: "dropLayers", method: "influence", count: Math.floor(layers / 2) });
// What is done in one shot, what is trained, what is done to the result of training, and the format it runs in.
const schemes = {
  dense: { stages: [], weights: "bf16" },
  quantisation: { stages: [rtn], weights: "q4", touches: "how weights are stored" },
  sparsification: { stages: [prune], training: { method: "fixed-mask" }, weights: "bf16", touches: "single weights" },
  distillation: { stages: [half], training: { distil: 0.5 }, weights: "bf16", touches: "half of the layers" },
  sharing: { share: 2, training: {}, weights: "bf16", touches: "weights of pairs of layers" },
  "low rank": { stages: [lowRank], training: {}, weights: "bf16", touches: "matrices" },
  "sparsification + quantisation": { stages: [prune], training: { method: "fixed-mask" }, last: [rtn], weights: "q4" },
  "distillation + quantisation": { stages: [half], training: { distil: 0.5 }, last: [rtn], weights: "q4" },
  "distillation + sparsification": {
    stages: [half, prune],
    training: { method: "fixed-mask", distil: 0.5 },
    weights: "bf16",
  },
  "sharing + distillation": { share: 2, training: { distil: 0.5 }, weights: "bf16" },
};
const source = directoryFiles(positionals[0]);
const tokenizer = await loadTokenizer(source);
const tokensOf = async (file) => tokenizeText(tokenizer, await readText(file));
const training = await tokenizeDocuments(tokenizer, await readTrainingText(values.text), { maxTokens: 1_000_000 });
const [calibration, evaluation] = [await tokensOf(values.calib), await tokensOf(values["eval-text"])];
const folder = await mkdtemp(join(tmpdir(), "five-schemes-"));
const opened = [];

const bytesOf = async (directory) => {
  const files = directoryFiles(directory);
  const weights = (await files.names()).filter((name) => name.endsWith(".safetensors"));
  const sizes = await Promise.all(weights.map(async (name) => (await stat(files.pathOf(name))).size));
  return sizes.reduce((sum, size) => sum + size, 0);
};
async function perplexityOf(directory, weights) {
  const model = await openModel(directoryFiles(directory), { weights, threads: 1 });
  const variants = [{ name: directory, model: model.model }];
  const [{ perplexity }] = await evaluateQuality(variants, evaluation, {
    window: 512,
    maxWindows: Number(values.windows),
  });
  return { model, perplexity };
}
async function oneShot(name, from, stages) {
  const { layers } = (await openModelConfig(from)) ?? {};
  const output = join(folder, name);
  const recipe = {
    version: 1,
    calibration: { windows: 16, window: 256 },
    stages: stages.map((s) => (typeof s === "function" ? s(layers) : s)),
  };
  await compressToDirectory(directoryFiles(from), output, {
    recipe: parseRecipe(recipe, name),
    calibration,
    store: "packed",
  });
  return output;
}
async function openModelConfig(directory) {
  const { num_hidden_layers: layers } = JSON.parse(await readText(join(directory, "config.json")));
  return { layers };
}
async function trained(name, from, { distil, method = "dense" }) {
  const output = join(folder, name);
  await trainToDirectory(directoryFiles(from), output, {
    from: "weights",
    method,
    steps: Number(values.steps),
    rate: Number(values.rate),
    warmup: Math.ceil(Number(values.steps) / 10),
    weightDecay: 0,
    seed: 1,
    saveEvery: 10_000,
    tokens: async () => training,
    ...(distil && { distil, teacher: source }),
  });
  return output;
}
try {
  const rows = [];
  for (const [name, scheme] of Object.entries(schemes)) {
    if (values.only !== undefined && name !== "dense" && !values.only.split(",").includes(name)) continue;
    let directory = positionals[0];
    if (scheme.share !== undefined) {
      directory = join(folder, `${name}, shared`);
      await shareLayersToDirectory(source, directory, { layers: scheme.share });
    } else if (scheme.stages.length > 0) directory = await oneShot(`${name}, one shot`, directory, scheme.stages);
    const row = { scheme: name, touches: scheme.touches ?? "", "needs training": scheme.training ? "yes" : "no" };
    let current = await perplexityOf(directory, scheme.weights);
    row["one shot"] = current.perplexity;
    if (scheme.training !== undefined) {
      current.model[Symbol.dispose]();
      directory = await trained(`${name}, trained`, directory, scheme.training);
      if (scheme.last !== undefined) directory = await oneShot(`${name}, last`, directory, scheme.last);
      current = await perplexityOf(directory, scheme.weights);
      row.trained = current.perplexity;
    }
    row.bytes = await bytesOf(directory);
    opened.push({ name, ...current });
    rows.push(row);
    console.error(JSON.stringify(row));
  }
  const speeds = await measureSpeed(
    opened.map(({ name, model }) => ({ name, model: model.model })),
    evaluation.tokens,
    { prefillTokens: 32, decodeTokens: 32, repeats: 3 },
  );
  for (const [r, row] of rows.entries()) {
    row.ratio = rows[0].bytes / row.bytes;
    row["speed-up"] = speeds[r].decodeTokensPerSecond.median / speeds[0].decodeTokensPerSecond.median;
  }
  if (values.json) console.log(JSON.stringify(rows, undefined, 1));
  else console.table(rows);
} finally {
  for (const { model } of opened) model[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
}
