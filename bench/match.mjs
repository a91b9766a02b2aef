// One run of rarefy against a peer: options, contestants, rounds, report. run.mjs and run-browser.mjs say where both live.

import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { readBandwidth } from "./bandwidth.mjs";
import { describeMachine } from "./machine.mjs";
import { alternate, compare, printReport, summarise } from "./rounds.mjs";

const twins = {
  q8: { type: "Q8_0", bitsPerWeight: 8.5 },
  q4: { type: "Q4_0", bitsPerWeight: 4.5 },
  bf16: { type: "F16", bitsPerWeight: 16 },
};

/**
 * @param open called with the model directory, gives { openPeer(file, { threads }), openOurs({ backend, weights, threads,
 *   sparsities }), close() }
 * @param defaults strings by option name
 */
export async function runMatch(open, defaults) {
  const settings = {
    model: join(import.meta.dirname, ".models/llama-1.1b"),
    threads: "2",
    rounds: "5",
    prompt: "128",
    tokens: "32",
    weights: "q8,q4",
    sparsity: "0.5",
    backend: "wasm",
    ...defaults,
  };
  const options = Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [name, { type: "string", default: value }]),
  );
  const { values } = parseArgs({ options: { ...options, out: { type: "string" } } });
  const directory = resolve(values.model);
  const [threads, rounds, prompt, tokens] = [values.threads, values.rounds, values.prompt, values.tokens].map(Number);
  const sparsities = values.sparsity.split(",").filter(Boolean).map(Number);

  const machine = describeMachine();
  const bandwidths = [await readBandwidth(threads)];
  const site = await open(directory);
  try {
    const { contestants, comparisons, close } = await enter(site, directory, { ...values, threads, sparsities });
    const results = await alternate(contestants, { rounds, prompt, tokens });
    bandwidths.push(await readBandwidth(threads));
    const report = {
      machine,
      readBytesPerSecond: Math.max(...bandwidths),
      settings: { model: basename(directory), threads, rounds, prompt, tokens },
      summary: summarise(results),
      ratios: compare(results, comparisons),
      rounds: results,
    };
    printReport(report);
    if (values.out) writeFileSync(values.out, `${JSON.stringify(report, null, 2)}\n`);
    await close();
  } finally {
    await site.close();
  }
}

/** Loads everything that takes part. */
async function enter(site, directory, { backend, weights: list, threads, sparsities }) {
  const contestants = [];
  const comparisons = [];
  const opened = [];
  for (const weights of list.split(",")) {
    const { file, type, bytesPerToken } = twinOf(directory, weights);
    const peer = await site.openPeer(file, { threads });
    const ours = await site.openOurs({ backend, weights, threads, sparsities });
    opened.push(peer, ours);
    process.stderr.write(`rarefy ${weights}: ${ours.description}\n`);

    const peerId = `${peer.name} ${type}`;
    const oursId = (sparsity) => `rarefy ${weights} ${sparsity ? `${100 * sparsity} % sparse` : "dense"}`;
    contestants.push({ id: peerId, measure: async (job) => ({ ...(await peer.measure(job)), bytesPerToken }) });
    for (const { sparsity, measure } of ours.variants) {
      contestants.push({ id: oursId(sparsity), measure });
      comparisons.push([oursId(sparsity), peerId, "decodeTokensPerSecond"]);
      if (sparsity) comparisons.push([oursId(sparsity), oursId(0), "decodeTokensPerSecond"]);
      else comparisons.push([oursId(sparsity), peerId, "prefillTokensPerSecond"]);
    }
  }

  const close = async () => {
    for (const { dispose } of opened) await dispose();
  };
  return { contestants, comparisons, close };
}

function twinOf(directory, weights) {
  const twin = twins[weights];
  if (!twin) throw new Error(`no twin for weights "${weights}"; there are ${Object.keys(twins).join(", ")}`);
  const { type, bitsPerWeight } = twin;
  const file = join(directory, `${basename(directory)}-${type}.gguf`);
  if (!existsSync(file)) throw new Error(`${file} is missing: node gguf-twin.mjs ${directory} --types ${type}`);
  const config = JSON.parse(readFileSync(join(directory, "config.json"), "utf8"));
  // All of the file is read for a token, but for the embedding table where the output has a matrix of its own.
  const embeddingBytes = (config.vocab_size * config.hidden_size * bitsPerWeight) / 8;
  return { file, type, bytesPerToken: statSync(file).size - (config.tie_word_embeddings ? 0 : embeddingBytes) };
}
