import { readFile } from "node:fs/promises";
import {
  calibrateActivationSparsity,
  generateText,
  loadTokenizer,
  openModel,
  tokenizeText,
  toThresholds,
} from "rarefy";
import { bundledText, resolveModel } from "rarefy/io/node";

const files = await resolveModel("tiny-6m"); // or a Hub id: "org/name"
const tokenizer = await loadTokenizer(files);
const opened = await openModel(files, { weights: "q8" });
const { model } = opened;

// Thresholds for 40 % activation sparsity from a few thousand tokens of text.
const text = await tokenizeText(tokenizer, await readFile(bundledText("tiny-6m:calib"), "utf8"));
const { records } = await calibrateActivationSparsity(model, text, { sparsities: [0.4], calibrationWindows: 8 });
const thresholds = toThresholds(records[0]);

// From here on, decoding skips the weights of the inputs that fall below them.
for await (const step of generateText(model, tokenizer, "It was a dark night", { thresholds, maxTokens: 48 })) {
  process.stdout.write(step.text);
}
const { inputs, inputsSkipped } = model.backend.takeCounters();
console.log(`\n${Math.round((100 * inputsSkipped) / inputs)} % of the inputs were skipped`);

opened[Symbol.dispose]();
