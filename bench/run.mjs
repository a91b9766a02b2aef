// rarefy against node-llama-cpp in one run, taking turns.
//
//   node run.mjs [--model .models/llama-1.1b] [--threads 2] [--rounds 5] [--prompt 128] [--tokens 32]
//                [--weights q8,q4] [--sparsity 0.5] [--backend wasm] [--out result.json]

import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { directoryFiles } from "../dist/io/index.node.js";
import { describeMachine } from "./machine.mjs";
import { openOurs } from "./ours.mjs";
import { openLlamaCpp } from "./peer-llamacpp.mjs";
import { alternate, compare, printReport, summarise } from "./rounds.mjs";

const { values } = parseArgs({
  options: {
    model: { type: "string", default: join(import.meta.dirname, ".models/llama-1.1b") },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "5" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "32" },
    weights: { type: "string", default: "q8,q4" },
    sparsity: { type: "string", default: "0.5" },
    backend: { type: "string", default: "wasm" },
    out: { type: "string" },
  },
});
const directory = resolve(values.model);
const [threads, rounds, prompt, tokens] = [values.threads, values.rounds, values.prompt, values.tokens].map(Number);
const sparsities = values.sparsity.split(",").filter(Boolean).map(Number);
const twins = { q8: "Q8_0", q4: "Q4_0", bf16: "F16" };
const bitsPerWeight = { Q8_0: 8.5, Q4_0: 4.5, F16: 16 };
const {
  vocab_size: vocab,
  hidden_size: hidden,
  tie_word_embeddings: tied,
} = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));

const machine = await describeMachine(threads);
const contestants = [];
const comparisons = [];
const opened = [];
for (const weights of values.weights.split(",")) {
  const type = twins[weights];
  if (!type) throw new Error(`no twin for weights "${weights}"; there are ${Object.keys(twins).join(", ")}`);
  const file = join(directory, `${basename(directory)}-${type}.gguf`);
  if (!existsSync(file)) throw new Error(`${file} is missing: node gguf-twin.mjs ${values.model} --types ${type}`);

  const peer = await openLlamaCpp(file, { threads });
  // All of the file is read for a token, but for the embedding table where the output has a matrix of its own.
  const bytesPerToken = statSync(file).size - (tied ? 0 : (vocab * hidden * bitsPerWeight[type]) / 8);
  const peerId = `node-llama-cpp ${type}`;
  contestants.push({ id: peerId, measure: async (job) => ({ ...(await peer.measure(job)), bytesPerToken }) });

  const ours = await openOurs(directoryFiles(directory), { backend: values.backend, weights, threads, sparsities });
  opened.push(peer, ours);
  console.error(`rarefy ${weights}: ${ours.description}`);
  const oursId = ({ sparsity }) => `rarefy ${weights}${sparsity ? ` ${100 * sparsity} % sparse` : " dense"}`;
  const [dense, ...sparse] = ours.variants;
  for (const variant of ours.variants) {
    contestants.push({ id: oursId(variant), measure: variant.measure });
    comparisons.push([oursId(variant), peerId, "decodeTokensPerSecond"]);
  }
  for (const variant of sparse) comparisons.push([oursId(variant), oursId(dense), "decodeTokensPerSecond"]);
  comparisons.push([oursId(dense), peerId, "prefillTokensPerSecond"]);
}

const results = await alternate(contestants, { rounds, prompt, tokens });
const report = {
  machine,
  settings: { model: basename(directory), threads, rounds, prompt, tokens },
  summary: summarise(results),
  ratios: compare(results, comparisons),
  rounds: results,
};
printReport(report);
if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 2)}\n`);
for (const { dispose } of opened) await dispose();
