// Early exit against figures that PyTorch and scikit-learn gave for the same windows (test/golden/inference.json, `exits`), on
// the built package:
//   npm run build && node scripts/check-exits.mjs MODEL [--calib models/text/calib.txt] [--text models/text/books-eval.txt]
// MODEL is a directory named after its checkpoint (tiny-6m, ref-28m). --only takes some figures: svm-from4-exact,top>=0.5-from1-
// propagate. Prints a table; exit code 1 when a figure is more than its tolerance off.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { evaluateQuality } from "../dist/eval/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openModel, trainExits } from "../dist/pipeline/index.js";
import { parseExits } from "../dist/runtime/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    golden: { type: "string", default: "test/golden/inference.json" },
    calib: { type: "string", default: "models/text/calib.txt" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    only: { type: "string" },
    threads: { type: "string", default: "1" },
    device: { type: "string", default: "cpu" },
  },
});
/** Of perplexity, layers and weights of the lines relatively; of agreements absolutely. */
const tolerances = { perplexity: 0.002, layers: 0.002, line: 0.01, agreement: 0.002 };

const directory = positionals[0] ?? "models/tiny-6m";
const name = basename(directory);
const golden = JSON.parse(readFileSync(values.golden, "utf8")).exits.models[name];
const files = directoryFiles(directory);
const tokenizer = await loadTokenizer(files);
const textOf = async (path) => tokenizeText(tokenizer, readFileSync(path, "utf8"));
// Weights as they are stored, widened: the figures are those of f32 arithmetic on bf16 weights.
const opened = await openModel(files, { weights: "bf16", device: values.device, threads: Number(values.threads) });
const { model } = opened;
let failures = 0;
const held = (good) => {
  if (!good) failures++;
  return good ? "" : "OFF";
};

console.log(`${name}, ${model.backend.info.description}`);
const trained = await trainExits(model, await textOf(values.calib), { calibrationWindows: 16 });
console.log("behind | agreement expected, ours | gap, top, bias expected | ours");
for (const { layers, agreement, svm } of trained.layers) {
  const expected = golden.svm_gap_top_bias[layers - 1];
  const ours = [svm.gap, svm.top, svm.bias];
  const agreed = golden.calib_agreement_per_layer[layers - 1];
  const good =
    Math.abs(agreement - agreed) <= tolerances.agreement &&
    ours.every((weight, i) => Math.abs(weight - expected[i]) <= tolerances.line * Math.max(1, Math.abs(expected[i])));
  const shown = ours.map((weight) => weight.toFixed(4));
  console.log([layers, `${agreed} ${agreement.toFixed(5)}`, expected, shown, held(good)].join(" | "));
}

/** `top>=0.5-from1-exact` as it is written here. */
function written(key) {
  const [, rule, least, from, fill] = /^(top|gap|svm)(?:>=([0-9.]+))?-from(\d)-(exact|propagate)$/.exec(key);
  return `${rule}:${least === undefined ? "" : `least=${least},`}from=${from},every=1,fill=${fill}`;
}
const asked = values.only?.split(",");
const text = await textOf(values.text);
console.log(
  "figure | written as | exit layer expected, ours | perplexity expected, ours | same top 1 as the whole model",
);
for (const [key, { mean_exit_layer, agreement, ppl }] of Object.entries(golden.exit)) {
  if (asked !== undefined && !asked.includes(key)) continue;
  const exits = parseExits(written(key), trained);
  const [, quality] = await evaluateQuality(
    [
      { name, model },
      { name: key, model, exits },
    ],
    text,
  );
  const { perplexity, meanExitLayer, divergence } = quality;
  // The last token of a window counts in the mean layer, and is not run here.
  const good =
    Math.abs(perplexity / ppl - 1) <= tolerances.perplexity &&
    Math.abs(meanExitLayer / mean_exit_layer - 1) <= tolerances.layers &&
    Math.abs(divergence.top1Agreement - agreement) <= tolerances.agreement;
  console.log(
    [
      key,
      exits.text,
      `${mean_exit_layer} ${meanExitLayer.toFixed(4)}`,
      `${ppl} ${perplexity.toFixed(4)}`,
      `${agreement} ${divergence.top1Agreement.toFixed(5)}`,
      held(good),
    ].join(" | "),
  );
}
opened[Symbol.dispose]();
if (failures > 0) {
  console.error(`${failures} figures are off`);
  process.exitCode = 1;
}
