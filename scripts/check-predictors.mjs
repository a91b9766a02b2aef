// Predictors of active neurons, and how many neurons a window of tokens reads anew, against figures that PyTorch gave for the same
// model and texts (test/golden/predictors.json), on the built package:
//   npm run build && node scripts/check-predictors.mjs RELU-6M --calib CALIB --text TEXT [--only svd32,logistic32-balanced,windowing]
// Exit code 1 when a share is further off than the golden file's own tolerance: 2e-4 relative untrained, 0.002 trained. Training
// takes some minutes for each.
import { readFileSync } from "node:fs";
import { openCheckpoint } from "../dist/io/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openModel, trainPredictors } from "../dist/pipeline/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    calib: { type: "string" },
    text: { type: "string" },
    golden: { type: "string", default: "test/golden/predictors.json" },
    only: { type: "string", default: "svd32,logistic32,logistic32-balanced,windowing" },
    threads: { type: "string", default: "1" },
  },
});
const golden = JSON.parse(readFileSync(values.golden, "utf8"));
const only = values.only.split(",");
const files = directoryFiles(positionals[0]);
const tokenizer = await loadTokenizer(files);
const tokensOf = async (path, count) =>
  (await tokenizeText(tokenizer, readFileSync(path, "utf8"), { maxTokens: count * 512 })).tokens;
const [calib, text] = [await tokensOf(values.calib, 64), await tokensOf(values.text, 40)];
const checkpoint = await openCheckpoint(files);
const opened = await openModel(files, { weights: "bf16", structure: "dense", threads: Number(values.threads) });
const { model } = opened;
const gateOf = (layer) => checkpoint.readFloat32(`model.layers.${layer}.mlp.gate_proj.weight`);

let wrong = 0;
function compare(name, found, wanted, tolerance) {
  const off = Math.abs(found - wanted);
  const good = off <= tolerance;
  if (!good) wrong++;
  console.log(
    `${good ? "  " : "! "}${name.padEnd(44)} ${found.toFixed(6)}  ${wanted.toFixed(6)}  off ${off.toExponential(1)}`,
  );
}

const kinds = {
  svd32: { passes: 0, balanced: false },
  logistic32: { passes: 4, balanced: false },
  "logistic32-balanced": { passes: 4, balanced: true },
};
for (const [name, how] of Object.entries(kinds)) {
  if (!only.includes(name)) continue;
  const trained = await trainPredictors(model, gateOf, calib, text, { rank: 32, window: 512, windows: 64, ...how });
  for (const [layer, found] of trained.entries()) {
    const wanted = golden.predictor[name][layer];
    const near = (value) => (how.passes === 0 ? Math.max(5e-5, 3e-4 * value) : 0.002);
    for (const what of ["recall", "precision"])
      compare(`${name} layer ${layer} ${what}`, found[what], wanted[what], near(wanted[what]));
    compare(
      `${name} layer ${layer} predicted`,
      found.predictedShare,
      wanted.predicted_share,
      near(wanted.predicted_share),
    );
    compare(`${name} layer ${layer} idle`, found.zeroShare, golden.zero_share[layer], 2e-4);
  }
}

if (only.includes("windowing")) {
  const fresh = Array.from({ length: 5 }, () => model.config.spec.blocks.map(() => 0));
  let counted = 0;
  const cache = model.createCache(512);
  for (let w = 0; w < 40; w++) {
    await model.forward(text.subarray(w * 512, (w + 1) * 512), cache, 0, {
      logits: "none",
      thresholds: "dense",
      tap: {
        sites: ["mlpHidden"],
        async onActivation(layer, _, activation) {
          const hidden = await model.backend.read(activation);
          const neurons = activation.cols;
          const last = new Int32Array(neurons).fill(-1000);
          for (let t = 0; t < activation.rows; t++) {
            for (let n = 0; n < neurons; n++) {
              if (hidden[t * neurons + n] === 0) continue;
              for (let k = 1; k <= 5; k++) if (t >= 5 && t - last[n] > k) fresh[k - 1][layer]++;
              last[n] = t;
            }
          }
          if (layer === 0) counted += (activation.rows - 5) * neurons;
        },
      },
    });
  }
  for (let k = 1; k <= 5; k++) {
    for (const [layer, wanted] of golden.windowing[`k${k}`].per_layer.entries()) {
      compare(`windowing k${k} layer ${layer}`, fresh[k - 1][layer] / counted, wanted, Math.max(5e-5, 3e-4 * wanted));
    }
  }
}
opened[Symbol.dispose]();
await checkpoint.close();
console.log(wrong === 0 ? "all within" : `${wrong} off`);
process.exitCode = wrong === 0 ? 0 : 1;
