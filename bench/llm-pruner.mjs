// LLM-Pruner's rows: units of all blocks but the first and the last, chosen from 10 windows of 64 tokens, nothing trained afterwards.
//   npm run build && node bench/llm-pruner.mjs MODEL --calib calib.txt --text eval.txt [--importances first,second,mixed,vector,l2,l1]
//     [--cuts mlp20,kv1of4,mlp20+kv1of4,mlp25+kv25] [--steps 1] [--windows 40]
// Perplexity over windows of 512 tokens in f32. A cut is a share of the neurons, one of four key and value heads, or both.
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseRecipe } from "../dist/compress/index.js";
import { evaluateQuality } from "../dist/eval/index.js";
import { directoryFiles, readText } from "../dist/io/index.node.js";
import { compressToDirectory } from "../dist/jobs/index.js";
import { openModel } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "../scripts/options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    calib: { type: "string" },
    text: { type: "string" },
    importances: { type: "string", default: "first,second,mixed,vector,l2,l1" },
    cuts: { type: "string", default: "mlp20,kv1of4,mlp20+kv1of4,mlp25+kv25" },
    steps: { type: "string", default: "1" },
    windows: { type: "string", default: "40" },
  },
});
const source = directoryFiles(positionals[0]);
const { num_hidden_layers: layers, intermediate_size: width } = JSON.parse(
  await readFile(join(positionals[0], "config.json"), "utf8"),
);
const ignore = [`**.layers.0.**`, `**.layers.${layers - 1}.**`];
// What stays is ⌊0.8 · width⌋.
const shareOf = (share) => 1 - Math.floor((1 - share) * width) / width;
const stagesOf = {
  mlp20: [["neurons", shareOf(0.2)]],
  kv1of4: [["heads", 0.25]],
  "mlp20+kv1of4": [
    ["neurons", shareOf(0.2)],
    ["heads", 0.25],
  ],
  "mlp25+kv25": [
    ["neurons", shareOf(0.25)],
    ["heads", 0.25],
  ],
};
const tokenizer = await loadTokenizer(source);
const tokensOf = async (file) => tokenizeText(tokenizer, await readText(file));
const [calibration, evaluation] = [await tokensOf(values.calib), await tokensOf(values.text)];
const steps = Number(values.steps);

const perplexityOf = async (files) => {
  const opened = await openModel(files, { weights: "f32" });
  try {
    const variants = [{ name: "model", model: opened.model }];
    const [{ perplexity }] = await evaluateQuality(variants, evaluation, {
      window: 512,
      maxWindows: Number(values.windows),
    });
    return perplexity;
  } finally {
    opened[Symbol.dispose]();
  }
};
console.log(`dense ${(await perplexityOf(source)).toFixed(4)}`);
for (const importance of values.importances.split(",")) {
  for (const cut of values.cuts.split(",")) {
    const folder = await mkdtemp(join(tmpdir(), "llm-pruner-"));
    const recipe = {
      version: 1,
      calibration: { windows: 10, window: 64, measureError: false },
      stages: stagesOf[cut].map(([type, sparsity]) => ({
        type: "prune",
        method: "llm-pruner",
        options: { importance },
        pattern: { type, sparsity },
        multipleOf: 1,
        shrink: false,
        ignore,
        ...(steps > 1 && { steps }),
      })),
    };
    try {
      const output = join(folder, "pruned");
      await compressToDirectory(source, output, { recipe: parseRecipe(recipe, "recipe"), calibration, store: "dense" });
      console.log(`${cut} ${importance} ${(await perplexityOf(directoryFiles(output))).toFixed(4)}`);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  }
}
