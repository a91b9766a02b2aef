// Prunes a model to half of its weights and says what that costs.
//   node prune.mjs org/name
import { readFile } from "node:fs/promises";
import { loadTokenizer, tokenizeText } from "rarefy";
import { parseRecipe } from "rarefy/compress";
import { bundledText, resolveModel } from "rarefy/io/node";
import { compressAndMeasure } from "rarefy/jobs";

const files = await resolveModel(process.argv[2] ?? "tiny-6m");
const tokenizer = await loadTokenizer(files);
const tokens = async (name) => tokenizeText(tokenizer, await readFile(bundledText(name), "utf8"));

const recipe = parseRecipe({
  version: 1,
  calibration: { window: 256, windows: 16 },
  stages: [{ type: "prune", method: "wanda", pattern: { type: "unstructured", sparsity: 0.5 } }],
});
// The directory appears whole or not at all; the same call goes on where a stopped one was.
const { before, after } = await compressAndMeasure(files, "pruned", {
  recipe,
  calibration: await tokens("tiny-6m:calib"),
  evaluation: await tokens("tiny-6m:eval"),
  maxWindows: 8,
  onProgress: ({ stage, done, total }) => process.stderr.write(`\r${stage} ${done}/${total} `),
});
console.log(`\nperplexity ${before.perplexity.toFixed(2)} before, ${after.perplexity.toFixed(2)} after`);
