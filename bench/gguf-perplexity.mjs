// Perplexity of a GGUF file in node-llama-cpp against that of the model in rarefy: same text, same tokens, same windows.
//
//   node gguf-perplexity.mjs MODEL FILE.gguf [--text F] [--window 512] [--max-windows 40] [--weights f32] [--tolerance 0.01]
//
// MODEL is what rarefy evaluates (a directory, or a .gguf file). The convention is that of `rarefy eval`: windows from the
// start of the text, no overlap, no begin-of-text token, mean negative log likelihood of the window − 1 tokens that each
// window predicts. First both tokenizers must give the same tokens for the whole text. Exit code 1 when they do not or the
// perplexities differ by more than the tolerance. Needs the built package (npm run build).

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";
import { readOptions } from "../scripts/options.mjs";
import { negativeLogLikelihood } from "./llama-nll.mjs";

const root = new URL("../", import.meta.url);
const { values: options, positionals } = readOptions({
  allowPositionals: true,
  options: {
    text: { type: "string", default: fileURLToPath(new URL("models/text/books-eval.txt", root)) },
    window: { type: "string", default: "512" },
    "max-windows": { type: "string", default: "40" },
    weights: { type: "string", default: "f32" },
    tolerance: { type: "string", default: "0.01" },
    threads: { type: "string", default: "2" },
    dist: { type: "string", default: fileURLToPath(new URL("dist", root)) },
  },
});
const [model, file] = positionals;
if (file === undefined) throw new Error("usage: node gguf-perplexity.mjs MODEL FILE.gguf [options]");
const [window, maxWindows, threads] = [options.window, options["max-windows"], options.threads].map(Number);

const load = (path) => import(`${options.dist}/${path}`);
const { resolveModel } = await load("io/index.node.js");
const { loadTokenizer } = await load("text/index.js");
const text = readFileSync(options.text, "utf8");
const tokenizer = await loadTokenizer(await resolveModel(model));
const tokens = tokenizer.encode(text, { addSpecialTokens: false });

// Without `build: "never"` a missing binary would be compiled; with maxThreads 0 `threads` is what is used.
const llama = await getLlama({ gpu: false, build: "never", maxThreads: 0, logLevel: LlamaLogLevel.error });
const peer = await llama.loadModel({ modelPath: file });

// `true`: special tokens spelt out in the text become their ids, as in rarefy; "trimLeadingSpace" is not asked for.
const peerTokens = peer.tokenize(text, true);
const differs = tokens.findIndex((token, i) => token !== peerTokens[i]);
const sameTokens = differs < 0 && tokens.length === peerTokens.length;
if (!sameTokens) {
  const around = (ids) => JSON.stringify(Array.from(ids.slice(differs - 3, differs + 5)));
  console.error(`tokens differ at ${differs} of ${tokens.length}: ${around(tokens)} and ${around(peerTokens)}`);
}

const windows = Math.min(maxWindows, Math.floor(tokens.length / window));
const context = await peer.createContext({ contextSize: window, batchSize: window, threads });
const sequence = context.getSequence();
let nll = 0;
for (let w = 0; w < windows; w++) {
  const ids = tokens.subarray(w * window, (w + 1) * window);
  nll += await negativeLogLikelihood(sequence, ids);
  process.stderr.write(`\rwindow ${w + 1} of ${windows}`);
}
process.stderr.write("\n");
await llama.dispose();

const perplexity = Math.exp(nll / (windows * (window - 1)));
const ours = JSON.parse(
  execFileSync(
    process.execPath,
    [
      `${options.dist}/cli/main.js`,
      ...["eval", model, "--text", options.text, "--weights", options.weights, "--json", "--quiet"],
      ...["--window", options.window, "--max-windows", String(windows), "--threads", options.threads],
    ],
    { encoding: "utf8" },
  ),
);
const ratio = perplexity / ours.perplexity;
const within = Math.abs(ratio - 1) <= Number(options.tolerance);
console.log(
  JSON.stringify(
    {
      file,
      model,
      weights: options.weights,
      sameTokens,
      tokens: tokens.length,
      windows,
      window,
      perplexity: { "node-llama-cpp": perplexity, rarefy: ours.perplexity },
      ratio,
      within,
    },
    null,
    2,
  ),
);
process.exitCode = sameTokens && within ? 0 : 1;
