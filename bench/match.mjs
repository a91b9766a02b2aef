// One run of rarefy against a peer: options, contestants, rounds, report. run.mjs and run-browser.mjs say where both live.

import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { readOptions } from "../scripts/options.mjs";
import { readBandwidth } from "./bandwidth.mjs";
import { describeMachine } from "./machine.mjs";
import { alternate, compare, printReport, summarise } from "./rounds.mjs";

const twins = {
  q8: { type: "Q8_0", bitsPerWeight: 8.5 },
  q4: { type: "Q4_0", bitsPerWeight: 4.5 },
  bf16: { type: "F16", bitsPerWeight: 16 },
};

/**
 * @param open called with the model directory, gives { peerName, openPeer(file, { threads, set }), openOurs({ backend, weights, threads,
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
    native: "best,0",
    structures: "dense",
    "peer-set": "",
    ...defaults,
  };
  const options = Object.fromEntries(
    Object.entries(settings).map(([name, value]) => [name, { type: "string", default: value }]),
  );
  const { values } = readOptions({ options: { ...options, out: { type: "string" } } });
  const directory = resolve(values.model);
  const [threads, rounds, prompt, tokens] = [values.threads, values.rounds, values.prompt, values.tokens].map(Number);
  const sparsities = values.sparsity.split(",").filter(Boolean).map(Number);

  const machine = describeMachine();
  const bandwidths = [await readBandwidth(threads)];
  const site = await open(directory);
  try {
    const { engines, comparisons } = enter(site, directory, { ...values, threads, sparsities });
    const results = await alternate(engines, { rounds, prompt, tokens });
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
  } finally {
    await site.close();
  }
}

/** What --native names: the best native kernels that there are, one set of them, or 0 for WebAssembly alone. */
const kernels = {
  best: { name: "native", native: true },
  amx: { name: "AMX", native: "amx" },
  avx512: { name: "AVX-512", native: "avx512" },
  avxvnni: { name: "AVX-VNNI", native: "avxvnni" },
  avx2: { name: "AVX2", native: "avx2" },
  0: { name: "WebAssembly", native: false },
};

/** Who takes part and who is compared with whom. */
function enter(site, directory, values) {
  const { backend, native: natives, structures, weights: list, threads, sparsities, "peer-set": set } = values;
  const engines = [];
  const comparisons = [];
  for (const weights of list.split(",")) {
    const { file, type, bytesPerToken } = twinOf(directory, weights);
    const peerId = [site.peerName, type, set].filter(Boolean).join(" ");
    engines.push({
      async open() {
        const { measure, dispose } = await site.openPeer(file, { threads, set });
        return {
          contestants: [{ id: peerId, measure: async (job) => ({ ...(await measure(job)), bytesPerToken }) }],
          dispose,
        };
      },
    });
    const sets = backend === "wasm" ? natives.split(",").map((id) => kernels[id]) : [{ name: backend }];
    const pairs = structures.split(",").flatMap((structure) => sets.map((set) => ({ ...set, structure })));
    for (const { name, native, structure } of pairs) {
      const oursId = (sparsity) =>
        `rarefy ${weights} ${name} ${structure}${sparsity ? `, ${100 * sparsity} % of inputs skipped` : ""}`;
      engines.push({
        async open() {
          const { variants, description, dispose } = await site.openOurs({
            backend,
            native,
            weights,
            structure,
            threads,
            sparsities,
          });
          process.stderr.write(`rarefy ${weights}: ${description}\n`);
          return { contestants: variants.map(({ sparsity, measure }) => ({ id: oursId(sparsity), measure })), dispose };
        },
      });
      for (const time of ["PerSecond", "PerCpuSecond"]) {
        comparisons.push([oursId(0), peerId, `decodeTokens${time}`], [oursId(0), peerId, `prefillTokens${time}`]);
        for (const sparsity of sparsities) {
          comparisons.push([oursId(sparsity), peerId, `decodeTokens${time}`]);
          comparisons.push([oursId(sparsity), oursId(0), `decodeTokens${time}`]);
        }
      }
    }
  }
  return { engines, comparisons };
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
