// Attention patterns and KV policies against figures that PyTorch gave for the same windows (test/golden/inference.json), on
// the built package:
//   npm run build && node scripts/check-attention.mjs MODEL [--text models/text/books-eval.txt] [--only quest-64,h2o-sum-128]
// MODEL is a directory named after its checkpoint (tiny-6m, ref-28m). Exit code 1 when a pattern is more than 0.5 % off, or a
// policy that throws away more than 1 %. Policies run token by token: all of them take hours, --only takes some.
import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { evaluateQuality } from "../dist/eval/index.js";
import { directoryFiles } from "../dist/io/index.node.js";
import { openModel } from "../dist/pipeline/index.js";
import { parseAttention, parseKv } from "../dist/runtime/index.js";
import { loadTokenizer, tokenizeText } from "../dist/text/index.js";
import { readOptions } from "./options.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    golden: { type: "string", default: "test/golden/inference.json" },
    text: { type: "string", default: "models/text/books-eval.txt" },
    only: { type: "string" },
    weights: { type: "string", default: "bf16" },
    threads: { type: "string", default: "1" },
    device: { type: "string", default: "cpu" },
  },
});
const directory = positionals[0] ?? "models/tiny-6m";
const golden = JSON.parse(readFileSync(values.golden, "utf8"));
const name = basename(directory);

/** Figures of `patterns` at 512 tokens by the patterns that make them. */
const patterns = {
  dense: "causal",
  "window64-sink0": "window:size=64",
  "window64-sink4": "window:size=64,sinks=4",
  "window128-sink0": "window:size=128",
  "window128-sink4": "window:size=128,sinks=4",
  strided32: "strided:stride=32",
  "strided32-heads": "strided:stride=32,split=heads",
  "strided32-layers": "strided:stride=32,split=layers",
  "fixed32-c4": "fixed:stride=32,columns=4",
  "fixed32-c8": "fixed:stride=32,columns=8",
  "fixed32-c4-heads": "fixed:stride=32,columns=4,split=heads",
  "longformer128-g16": "longformer:window=128,global=16",
  "longformer128-g16-half": "longformer:window=65,global=16",
  "dilated2-w64": "dilated:window=64,dilation=2",
  "dilated2-w64-g16": "dilated:window=64,dilation=2,global=16",
  "dilated2-w64-heads": "dilated:window=64,dilation=2,split=heads",
  "bigbird16-causal": "bigbird:block=16,global=2,window=3,random=3",
  "bigbird16-itc": "bigbird:block=16,global=1,window=2,random=3,length=512",
};
const quest = Object.fromEntries(
  [64, 128, 256].map((budget) => [`quest-${budget}`, `quest:budget=${budget},prompts=sparse`]),
);
const others = { ...quest, "quest-64-all-layers": "quest:budget=64,dense=0,prompts=sparse" };

/** Figures of `evictions` by policy; a budget holds the token that runs beside what was kept. */
const policies = {};
for (const budget of [32, 64, 128, 256]) {
  policies[`recent-${budget}`] = `recent:budget=${budget}`;
  policies[`sink-${budget}`] = `sinks:budget=${budget}`;
  policies[`random-${budget}`] = `random:budget=${budget}`;
  policies[`sink-slots-${budget}`] = `sinks:budget=${budget},positions=slots`;
  policies[`h2o-sum-${budget}`] = `h2o:budget=${budget}`;
  policies[`h2o-max-${budget}`] = `h2o:budget=${budget},group=max`;
}
const tails = {};
for (const budget of [48, 96, 192]) {
  for (const policy of ["snapkv", "pyramidkv"]) tails[`tail128-${policy}-${budget}`] = `${policy}:budget=${budget}`;
}

const asked = values.only?.split(",");
const wanted = (figures) => Object.entries(figures).filter(([key]) => asked === undefined || asked.includes(key));
const settings = [
  ...wanted(patterns).map(([key, text]) => ({
    key,
    text,
    expected: golden.patterns.models[name].T512[key],
    tolerance: 0.005,
    variant: { attention: parseAttention(text) },
  })),
  ...wanted(others).map(([key, text]) => ({
    key,
    text,
    expected: golden.others.models[name][key],
    tolerance: 0.005,
    variant: { attention: parseAttention(text) },
  })),
  ...wanted(policies).map(([key, text]) => ({
    key,
    text,
    expected: golden.evictions.models[name].T512[key],
    tolerance: 0.01,
    variant: { kv: parseKv(text) },
  })),
  ...wanted(tails).map(([key, text]) => ({
    key,
    text,
    expected: golden.others.models[name][key],
    tolerance: 0.01,
    variant: { kv: parseKv(text) },
    promptTokens: 384,
  })),
];

const files = directoryFiles(directory);
const tokenizer = await loadTokenizer(files);
const text = await tokenizeText(tokenizer, readFileSync(values.text, "utf8"));
const opened = await openModel(files, {
  weights: values.weights,
  device: values.device,
  threads: Number(values.threads),
});
console.log(`${name}, ${values.weights} weights, ${opened.model.backend.info.description}, 40 windows of 512`);
console.log("figure | written as | expected | ours | off | share of keys and values read");
let failures = 0;
for (const { key, text: written, expected, tolerance, variant, promptTokens } of settings) {
  if (expected === undefined) continue;
  const variants = [{ name, model: opened.model, ...variant }];
  const [{ perplexity, attendedShare }] = await evaluateQuality(variants, text, { promptTokens });
  const off = perplexity / expected - 1;
  if (!(Math.abs(off) <= tolerance)) failures++;
  console.log(
    [
      key,
      written,
      expected.toFixed(4),
      perplexity.toFixed(4),
      `${(100 * off).toFixed(3)} %`,
      attendedShare.toFixed(3),
    ].join(" | "),
  );
}
opened[Symbol.dispose]();
if (failures > 0) {
  console.error(`${failures} figures are off`);
  process.exitCode = 1;
}
