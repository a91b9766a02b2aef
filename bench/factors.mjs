// Factors at equal numbers: what one shot costs, what a short training gives back, how fast they decode.
//   npm run build && node bench/factors.mjs MODEL --text train.txt --eval-text eval.txt [--of blocks|embedding] [--ratio 4]
//     [--only tt,morphte] [--out DIR] [--steps 60] [--device webgpu] [--batch 4] [--window 128] [--untie]
// Of blocks the matrices of the MLPs are put in factors, of an embedding the table of tokens, each in 1 / ratio of its numbers: modes and
// ranks are searched for over the methods' own formulas of size. word2ket cannot be multiplied with, so an embedding whose head is tied to
// it has no row of it; --untie gives the head a copy of its own before anything else, for all methods. All weights are trained, at one
// rate. Perplexity over --windows windows of 512 tokens in f32; decoding in turn, one thread. What is finished in --out is not done again.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { parseRecipe } from "../dist/compress/index.js";
import { evaluateQuality, measureSpeed } from "../dist/eval/index.js";
import { isCompanionFile, openCheckpoint, writeSafetensors } from "../dist/io/index.js";
import { buildModelDirectory, directoryFiles, readText } from "../dist/io/index.node.js";
import { compressToDirectory, trainToDirectory } from "../dist/jobs/index.js";
import { countParameters, describeDecoder } from "../dist/model/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { tokenizeDocuments } from "../dist/train/index.js";
import { readTrainingText } from "../dist/train/index.node.js";
import { readOptions } from "../scripts/options.mjs";
import { nearestRank, nearestSize } from "./factorSizes.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    text: { type: "string" },
    "eval-text": { type: "string" },
    of: { type: "string", default: "blocks" },
    ratio: { type: "string", default: "4" },
    only: { type: "string" },
    out: { type: "string" },
    untie: { type: "boolean", default: false },
    steps: { type: "string", default: "60" },
    rate: { type: "string", default: "1e-3" },
    windows: { type: "string", default: "10" },
    device: { type: "string", default: "wasm" },
    batch: { type: "string", default: "4" },
    window: { type: "string", default: "128" },
    json: { type: "boolean", default: false },
  },
});
const ratio = Number(values.ratio);
const out =
  values.out ?? join(import.meta.dirname, ".models", `factors-${basename(positionals[0])}-${values.of}-${ratio}`);
mkdirSync(out, { recursive: true });

const mlp = "**.mlp.**_proj.weight";
const methodsOf = {
  blocks: ["low rank", "sparse + low rank", "tt", "tucker", "htt"],
  embedding: ["matrix", "tt", "word2ketxs", "word2ket", "morphte"],
};

/** The stage of a recipe that a method is asked for with, and the numbers that it comes to; undefined where it cannot be. */
function stageOf(name, shapes) {
  if (name === "low rank") {
    const { rank, numbers } = nearestRank(shapes, ratio);
    return { stage: { type: "lowRank", method: "svd", rank, targets: [mlp] }, numbers };
  }
  if (name === "sparse + low rank") {
    // Half of the numbers each for the pair and for what it leaves.
    const { rank, numbers } = nearestRank(shapes, 2 * ratio);
    const pattern = { type: "unstructured", sparsity: 1 - 1 / (2 * ratio) };
    const stage = { type: "lowRank", method: "svd", rank, residual: { method: "magnitude", pattern }, targets: [mlp] };
    return { stage, numbers: numbers + factored / (2 * ratio) };
  }
  const found = nearestSize(name, shapes, ratio, values.of);
  if (found === undefined) return undefined;
  const { options, size, numbers } = found;
  const of = values.of === "blocks" ? { type: "tensors", targets: [mlp] } : { type: "embedding" };
  return { stage: { ...of, method: name, options, ...size }, numbers };
}

/** Shapes of what is put in factors; the table of tokens with their texts. */
async function shapesOf(files, tokenizer) {
  const checkpoint = await openCheckpoint(files);
  await checkpoint.close();
  const [rows, cols] = checkpoint.tensors.get("model.embed_tokens.weight").shape;
  const isTied = !checkpoint.tensors.has("lm_head.weight");
  const shapes =
    values.of === "blocks"
      ? [...checkpoint.tensors]
          .filter(([name]) => /\.mlp\..*_proj\.weight$/.test(name))
          .map(([, { shape }]) => ({ rows: shape[0], cols: shape[1] }))
      : [{ rows, cols, pieces: Array.from({ length: rows }, (_, id) => tokenizer.tokenOf(id)) }];
  return { shapes, isTied };
}

/** A model whose head has a copy of the table of tokens. */
async function untied(files, directory) {
  if (existsSync(directory)) return directoryFiles(directory);
  const checkpoint = await openCheckpoint(files);
  const all = [...checkpoint.tensors].map(([name, info]) => ({ name, from: name, ...info }));
  const table = all.find(({ name }) => name === "model.embed_tokens.weight");
  const head = { ...table, name: "lm_head.weight" };
  await buildModelDirectory(directory, [], async (builder) => {
    await builder.takeOver(files, isCompanionFile);
    const config = { ...checkpoint.config, tie_word_embeddings: false };
    await builder.add("config.json", new TextEncoder().encode(`${JSON.stringify(config, undefined, 2)}\n`));
    const tensors = [...all, head].map(({ name, from, dtype, shape }) => ({
      ...{ name, dtype, shape },
      bytes: async function* () {
        yield await checkpoint.read(from);
      },
    }));
    await writeSafetensors(builder.sinks, tensors);
  });
  await checkpoint.close();
  return directoryFiles(directory);
}

const opened = [];
async function open(name, files) {
  const whole = await openModel(files, { weights: "f32", threads: 1 });
  opened.push({ name, model: whole.model, dispose: () => whole[Symbol.dispose]() });
}

async function measure(name, files, evaluation) {
  const model = await openModel(files, { weights: "f32" });
  const quality = { window: 512, maxWindows: Number(values.windows) };
  const [{ perplexity }] = await evaluateQuality([{ name, model: model.model }], evaluation, quality);
  model[Symbol.dispose]();
  const checkpoint = await openCheckpoint(files);
  const { config } = await describeDecoder(checkpoint);
  const numbers = countParameters(config.spec, checkpoint.tensors).total;
  await checkpoint.close();
  return { perplexity, numbers };
}

/** What `make` gives, or gave when it was asked with the same settings before. */
async function once(name, settings, make) {
  const path = join(out, `${name}.json`);
  const wanted = JSON.stringify(settings);
  if (existsSync(path)) {
    const { settings: had, row } = JSON.parse(readFileSync(path, "utf8"));
    if (JSON.stringify(had) === wanted) return row;
  }
  const row = await make();
  writeFileSync(path, JSON.stringify({ settings, row }));
  console.error(JSON.stringify(row));
  return row;
}

/** @returns what tells the minutes of CPU time of all threads since it was last asked */
function cpuClock() {
  let since = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(since);
    since = process.cpuUsage();
    return (user + system) / 60e6;
  };
}

const original = directoryFiles(positionals[0]);
const source = values.untie ? await untied(original, join(out, "untied")) : original;
const tokenizer = await loadTokenizer(source);
const training = await tokenizeDocuments(tokenizer, await readTrainingText(values.text), { maxTokens: 400_000 });
const evaluation = await tokenizeText(tokenizer, await readText(values["eval-text"]));
const { shapes, isTied } = await shapesOf(source, tokenizer);
const factored = shapes.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
const { only, json, out: _out, ...settings } = values;

const rows = [
  await once("dense", settings, async () => {
    const { numbers, perplexity } = await measure("dense", source, evaluation);
    return { name: "dense", numbers, ratio: 1, oneShot: perplexity };
  }),
];
await open("dense", source);
for (const name of methodsOf[values.of]) {
  if (only !== undefined && !only.split(",").includes(name)) continue;
  const found = name === "word2ket" && isTied ? undefined : stageOf(name, shapes);
  if (found === undefined) {
    console.error(`${name}: cannot be made ${ratio} times smaller here`);
    continue;
  }
  const [output, trained] = [join(out, name.replace(/\W+/g, "-")), join(out, `${name.replace(/\W+/g, "-")}-trained`)];
  const row = await once(name.replace(/\W+/g, "-"), settings, async () => {
    const recipe = parseRecipe({ version: 1, stages: [found.stage] }, "recipe");
    const cpuMinutes = cpuClock();
    await compressToDirectory(source, output, { recipe, store: "packed", force: true });
    const compressing = cpuMinutes();
    const before = await measure(name, directoryFiles(output), evaluation);
    const measuring = cpuMinutes();
    await trainToDirectory(directoryFiles(output), trained, {
      ...{ from: "weights", method: name.startsWith("sparse") ? "fixed-mask" : "dense", device: values.device },
      ...{ steps: Number(values.steps), rate: Number(values.rate), warmup: 5, weightDecay: 0, seed: 1 },
      ...{ batch: Number(values.batch), window: Number(values.window), saveEvery: 20, force: true },
      tokens: async () => training,
    });
    const learning = cpuMinutes();
    const after = await measure(name, directoryFiles(trained), evaluation);
    return {
      // Zeros of a sparse rest are no numbers of the model.
      ...{ name, stage: found.stage, numbers: rows[0].numbers - factored + found.numbers },
      ratio: factored / found.numbers,
      ...{
        oneShot: before.perplexity,
        trained: after.perplexity,
        cpuMinutes: { compressing, measuring: 2 * measuring, learning },
      },
    };
  });
  rows.push(row);
  await open(name, directoryFiles(trained));
}
const speeds = await measureSpeed(
  opened.map(({ name, model }) => ({ name, model })),
  evaluation.tokens,
  { prefillTokens: 32, decodeTokens: 32, repeats: 3 },
);
for (const [r, speed] of speeds.entries()) {
  rows[r].tokensPerSecond = speed.decodeTokensPerSecond.median;
  rows[r].bytesPerToken = speed.bytesPerToken;
}
for (const { dispose } of opened) dispose();

if (json) console.log(JSON.stringify(rows, undefined, 1));
else {
  const sizeOf = ({ stage }) =>
    stage === undefined
      ? ""
      : [
          stage.rank && `rank ${stage.rank}`,
          stage.keepRatio && `share ${stage.keepRatio.toFixed(4)}`,
          stage.options?.order && `order ${stage.options.order}`,
        ]
          .filter(Boolean)
          .join(", ");
  console.log("| method | size | numbers of the model | ratio | one shot | trained | tokens/s | MB by token |");
  console.log("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
  for (const row of rows) {
    const { name, numbers, ratio, oneShot, trained, tokensPerSecond, bytesPerToken } = row;
    const cells = [name, sizeOf(row), numbers.toLocaleString("en"), ratio.toFixed(2), oneShot.toFixed(2)];
    cells.push(trained?.toFixed(2) ?? "", tokensPerSecond.toFixed(1), (bytesPerToken / 1e6).toFixed(2));
    console.log(`| ${cells.join(" | ")} |`);
  }
}
