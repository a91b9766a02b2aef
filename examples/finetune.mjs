// Trains the weights that pruning has left; those that are 0 stay 0.
//   node finetune.mjs pruned notes.txt 100
import { readFile } from "node:fs/promises";
import { loadTokenizer } from "rarefy";
import { bundledText, resolveModel } from "rarefy/io/node";
import { trainToDirectory } from "rarefy/jobs";
import { tokenizeDocuments } from "rarefy/train";

const [model = "pruned", text = bundledText("tiny-6m:calib"), steps = "100"] = process.argv.slice(2);
const files = await resolveModel(model);
const tokenizer = await loadTokenizer(files);

// Ctrl-C stores the run; the same call goes on from there to the same bytes.
const stop = new AbortController();
process.once("SIGINT", () => stop.abort());
const { finalLoss, sparsity, tokensPerSecond } = await trainToDirectory(files, "recovered", {
  from: "weights",
  method: "fixed-mask",
  steps: Number(steps),
  batch: 2,
  window: 128,
  tokens: async () => tokenizeDocuments(tokenizer, await readFile(text, "utf8")),
  signal: stop.signal,
  onProgress: ({ done, total }) => process.stderr.write(`\r${done}/${total} `),
});
console.log(
  `\nloss ${finalLoss.toFixed(3)}, ${Math.round(100 * sparsity)} % zeros, ${Math.round(tokensPerSecond)} tokens/s`,
);
