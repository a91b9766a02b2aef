// Tokens per second with and without drafts, in turn, on one machine: what speculation gains, or costs.
//
//   npm run build && node bench/speculation.mjs MODEL --drafts DRAFT-DIRECTORY,lookup,layers=4 [--text TEXT] [--tokens 128]
//                    [--rounds 5] [--weights bf16] [--threads 1] [--draft-tokens 4] [--temperature 0] [--json]
//
// A draft that agrees by construction, of a target whose layers from the fifth on add nothing:
//
//   node bench/random-model.mjs --tied --silent-from 4 --out .models/target
//   node bench/random-model.mjs --tied --layers 4 --out .models/draft
//   node bench/speculation.mjs .models/target --drafts .models/draft,layers=4
import { readFileSync } from "node:fs";
import { loadTokenizer, openModel, tokenizeText } from "../dist/index.js";
import { resolveModel } from "../dist/io/index.node.js";
import { collect, generate, layersDraft, lookupDraft, modelDraft } from "../dist/runtime/index.js";
import { readOptions } from "../scripts/options.mjs";
import { median } from "./rounds.mjs";

const { values, positionals } = readOptions({
  allowPositionals: true,
  options: {
    drafts: { type: "string", default: "lookup" },
    text: { type: "string" },
    tokens: { type: "string", default: "128" },
    rounds: { type: "string", default: "5" },
    weights: { type: "string", default: "bf16" },
    threads: { type: "string", default: "1" },
    "draft-tokens": { type: "string" },
    temperature: { type: "string", default: "0" },
    json: { type: "boolean", default: false },
  },
});
const options = { weights: values.weights, threads: Number(values.threads) };
const files = await resolveModel(positionals[0]);
const target = await openModel(files, options);
const opened = [];
const drafts = { none: undefined };
for (const name of values.drafts.split(",")) {
  if (name === "lookup") drafts[name] = lookupDraft();
  else if (name.startsWith("layers=")) drafts[name] = layersDraft(Number(name.slice("layers=".length)));
  else {
    opened.push(await openModel(await resolveModel(name), options));
    drafts[name] = modelDraft(opened.at(-1).model, name);
  }
}
const tokenizer = await loadTokenizer(files);
const text = values.text === undefined ? undefined : readFileSync(values.text, "utf8");
const { vocabSize } = target.model.config;
const read = text && (await tokenizeText(tokenizer, text)).tokens;
const promptOf = (round) =>
  read?.slice(round * 500, round * 500 + 64) ??
  Uint32Array.from({ length: 64 }, (_, i) => (i * 131 + round * 17) % vocabSize);

const runs = [];
// The first round warms up. Rounds outside, drafts inside: what disturbs a machine for a while disturbs all of them.
for (let round = -1; round < Number(values.rounds); round++) {
  for (const [name, draft] of Object.entries(drafts)) {
    const { timings, tokenIds, speculation } = await collect(
      generate(target.model, promptOf(round + 1), {
        ...{ draft, maxTokens: Number(values.tokens), stopIds: [], temperature: Number(values.temperature) },
        ...(draft && values["draft-tokens"] && { draftTokens: Number(values["draft-tokens"]) }),
      }),
    );
    if (round < 0) continue;
    const speed = (1000 * (tokenIds.length - 1)) / timings.decodeMs;
    runs.push({ name, round, speed, ...speculation });
  }
}
const plain = runs.filter(({ name }) => name === "none");
const rows = Object.keys(drafts).map((name) => {
  const mine = runs.filter((run) => run.name === name);
  const sum = (of) => mine.reduce((total, run) => total + (run[of] ?? 0), 0);
  return {
    draft: name,
    tokensPerSecond: median(mine.map(({ speed }) => speed)),
    from: Math.min(...mine.map(({ speed }) => speed)),
    to: Math.max(...mine.map(({ speed }) => speed)),
    // Of one round, which lies close together in time.
    timesPlain: median(mine.map(({ speed }, i) => speed / plain[i].speed)),
    acceptance: name === "none" ? undefined : sum("acceptance") / mine.length,
    draftedPerRound: name === "none" ? undefined : sum("drafted") / sum("rounds"),
  };
});
if (values.json)
  console.log(JSON.stringify({ model: positionals[0], backend: target.model.backend.info, rows }, undefined, 2));
else {
  console.log(`${positionals[0]}, ${target.model.backend.info.description}`);
  console.log("| draft | tokens/s | from - to | times plain | accepted | proposed a round |");
  for (const row of rows) {
    const shown = [row.acceptance, row.draftedPerRound].map((value) => (value === undefined ? "" : value.toFixed(2)));
    console.log(
      `| ${[row.draft, row.tokensPerSecond.toFixed(1), `${row.from.toFixed(1)} - ${row.to.toFixed(1)}`, row.timesPlain.toFixed(2), ...shown].join(" | ")} |`,
    );
  }
}
for (const one of [...opened, target]) one[Symbol.dispose]();
