// Factors at equal numbers: what one shot costs, what a short training of the factors themselves gives back, and how fast they decode.
//   npm run build && node bench/factors.mjs MODEL --text train.txt --eval-text eval.txt [--of blocks|embedding] [--steps 60] [--keep 0.5]
//     [--methods tt,morphte] [--device webgpu] [--batch 8] [--window 256]
// Blocks: the MLPs of all blocks. Perplexity over --windows windows of 512 tokens in f32; decoding in turn, one thread.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRecipe } from "../dist/compress/index.js";
import { evaluateQuality, measureSpeed } from "../dist/eval/index.js";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles, readText } from "../dist/io/index.node.js";
import { compressToDirectory, trainToDirectory } from "../dist/jobs/index.js";
import { countParameters, describeDecoder } from "../dist/model/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { tokenizeDocuments } from "../dist/train/index.js";
import { readTrainingText } from "../dist/train/index.node.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    text: { type: "string" },
    "eval-text": { type: "string" },
    of: { type: "string", default: "blocks" },
    keep: { type: "string" },
    steps: { type: "string", default: "60" },
    rate: { type: "string", default: "1e-3" },
    windows: { type: "string", default: "10" },
    device: { type: "string", default: "wasm" },
    batch: { type: "string" },
    window: { type: "string" },
    methods: { type: "string" },
  },
});
const source = directoryFiles(positionals[0]);
const mlp = ["**.mlp.**_proj.weight"];
const tables = {
  blocks: {
    keep: 0.5,
    "low rank": (keepRatio) => ({ type: "lowRank", method: "svd", keepRatio, targets: mlp }),
    // Half of the numbers each for the pair and for what it leaves.
    "sparse + low rank": (keepRatio) => ({
      type: "lowRank",
      method: "svd",
      keepRatio: keepRatio / 2,
      residual: { method: "magnitude", pattern: { type: "unstructured", sparsity: 1 - keepRatio / 2 } },
      targets: mlp,
    }),
    tt: (keepRatio) => ({ type: "tensors", method: "tt", keepRatio, targets: mlp }),
    tucker: (keepRatio) => ({ type: "tensors", method: "tucker", keepRatio, targets: mlp }),
    htt: (keepRatio) => ({ type: "tensors", method: "htt", keepRatio, targets: mlp }),
  },
  embedding: {
    keep: 0.05,
    ...Object.fromEntries(
      ["matrix", "tt", "word2ketxs", "morphte"].map((method) => [
        method,
        (keepRatio) => ({ type: "embedding", method, keepRatio }),
      ]),
    ),
  },
};
const { keep: usual, ...methods } = tables[values.of];
const keep = Number(values.keep ?? usual);
const tokenizer = await loadTokenizer(source);
const training = await tokenizeDocuments(tokenizer, await readTrainingText(values.text), { maxTokens: 400_000 });
const evaluation = await tokenizeText(tokenizer, await readText(values["eval-text"]));

const folder = await mkdtemp(join(tmpdir(), "factors-"));
const opened = [];
const rows = [];
async function measure(name, files) {
  const model = await openModel(files, { weights: "f32", threads: 1 });
  opened.push({ name, model: model.model, dispose: () => model[Symbol.dispose]() });
  const [{ perplexity }] = await evaluateQuality([{ name, model: model.model }], evaluation, {
    window: 512,
    maxWindows: Number(values.windows),
  });
  const checkpoint = await openCheckpoint(files);
  const { config } = await describeDecoder(checkpoint);
  const numbers = countParameters(config.spec, checkpoint.tensors).total;
  await checkpoint.close();
  return { perplexity, numbers };
}
try {
  const dense = await measure("dense", source);
  rows.push({ name: "dense", numbers: dense.numbers, "one shot": dense.perplexity });
  for (const [name, stage] of Object.entries(methods)) {
    if (values.methods !== undefined && !values.methods.split(",").includes(name)) continue;
    const [output, trained] = [join(folder, name), join(folder, `${name}, trained`)];
    const recipe = parseRecipe({ version: 1, stages: [stage(keep)] }, "recipe");
    await compressToDirectory(source, output, { recipe, store: "packed" });
    const before = await measure(name, directoryFiles(output));
    await trainToDirectory(directoryFiles(output), trained, {
      from: "weights",
      method: name.startsWith("sparse") ? "fixed-mask" : "dense",
      steps: Number(values.steps),
      rate: Number(values.rate),
      device: values.device,
      ...(values.batch !== undefined && { batch: Number(values.batch) }),
      ...(values.window !== undefined && { window: Number(values.window) }),
      warmup: 5,
      weightDecay: 0,
      seed: 1,
      saveEvery: 1000,
      tokens: async () => training,
    });
    opened.pop().dispose();
    const after = await measure(name, directoryFiles(trained));
    rows.push({ name, numbers: before.numbers, "one shot": before.perplexity, trained: after.perplexity });
    console.error(JSON.stringify(rows.at(-1)));
  }
  const speeds = await measureSpeed(
    opened.map(({ name, model }) => ({ name, model })),
    evaluation.tokens,
    { prefillTokens: 32, decodeTokens: 32, repeats: 3 },
  );
  for (const [r, speed] of speeds.entries()) {
    rows[r]["tokens/s"] = speed.decodeTokensPerSecond.median;
    rows[r]["MB/token"] = speed.bytesPerToken / 1e6;
  }
  console.log(JSON.stringify(rows, undefined, 1));
} finally {
  for (const { dispose } of opened) dispose();
  await rm(folder, { recursive: true, force: true });
}
