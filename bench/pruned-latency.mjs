// What a structurally pruned model takes, beside the dense one in the same run: neurons and key and value heads are cut by the length of
// their weights, which needs no text, and the models take turns in prefill and decoding.
//   npm run build && node bench/random-model.mjs --out bench/.models/llama-1.1b && node bench/pruned-latency.mjs bench/.models/llama-1.1b
//     [--shares 0.2,0.5] [--weights q8] [--threads 1] [--prefill-tokens 128] [--decode-tokens 64] [--repeats 5] [--json]
// A share of the neurons goes, to multiples of 32, and as many heads as that share rounds to, in every block. The smaller models are kept
// beside MODEL (MODEL-cut20) and made once.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { parseRecipe } from "../dist/compress/index.js";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { compressToDirectory } from "../dist/jobs/index.js";
import { describeDecoder } from "../dist/model/index.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    shares: { type: "string", default: "0.2,0.5" },
    weights: { type: "string", default: "q8" },
    threads: { type: "string" },
    "prefill-tokens": { type: "string", default: "128" },
    "decode-tokens": { type: "string", default: "64" },
    repeats: { type: "string", default: "5" },
    json: { type: "boolean", default: false },
  },
});
const [model] = positionals;

const blocksOf = async (directory) => {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  const { config } = await describeDecoder(checkpoint);
  await checkpoint.close();
  return config.blocks;
};
const [{ kvHeads }] = await blocksOf(model);

const cuts = [];
for (const text of values.shares.split(",")) {
  const share = Number(text);
  const heads = Math.round(share * kvHeads);
  const output = `${model}-cut${Math.round(100 * share)}`;
  const prune = (type, sparsity) => ({
    type: "prune",
    method: "llm-pruner",
    options: { importance: "l2" },
    pattern: { type, sparsity },
  });
  const recipe = {
    version: 1,
    stages: [prune("neurons", share), ...(heads > 0 ? [prune("heads", heads / kvHeads)] : [])],
  };
  await compressToDirectory(directoryFiles(model), output, { recipe: parseRecipe(recipe, "recipe"), store: "dense" });
  const [block] = await blocksOf(output);
  if (!values.json)
    console.log(`${output}: ${block.intermediateSize} neurons and ${block.kvHeads} of ${kvHeads} heads a block`);
  cuts.push(output);
}

const main = join(import.meta.dirname, "../dist/cli/main.js");
const passed = ["weights", "threads", "prefill-tokens", "decode-tokens", "repeats"].flatMap((name) =>
  values[name] === undefined ? [] : [`--${name}`, values[name]],
);
const { status } = spawnSync(
  process.execPath,
  [main, "bench", model, "--against", ...cuts, ...passed, ...(values.json ? ["--json"] : [])],
  { stdio: "inherit" },
);
process.exitCode = status ?? 1;
