/**
 * Tokens per second of `rarefy serve` at 1, 4 and 16 clients, dense and as sparse as the model was calibrated, and of llama.cpp's server
 * in the same run: all servers are up, and take turns round by round, every other round in reverse order.
 *
 *   node bench/serve-speed.mjs [--model ./dir] [--weights q8] [--sparse-alone 1] [--peer FILE.gguf --python PYTHON]
 *                              [--clients 1,4,16] [--tokens 32] [--rounds 3] [--threads 2] [--json FILE]
 *
 * Every client asks for one greedy text of --tokens tokens after a prompt of four ids, at the same moment. The peer runs in the
 * Python that --python names, which has xllamacpp (PyPI: llama.cpp with its own HTTP server); see peer_llama_server.py.
 */
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { readOptions } from "../scripts/options.mjs";
import { median } from "./rounds.mjs";
import { holds, post, startRarefy, startServer } from "./serving.mjs";

const { values: given } = readOptions({
  options: {
    model: { type: "string", default: "tiny-6m" },
    weights: { type: "string" },
    "sparse-alone": { type: "string", default: "1" },
    peer: { type: "string" },
    python: { type: "string", default: "python3" },
    clients: { type: "string", default: "1,4,16" },
    tokens: { type: "string", default: "32" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    json: { type: "string" },
  },
});
const [tokens, threads, rounds] = [given.tokens, given.threads, given.rounds].map(Number);
const numbers = (list) => list.split(",").map(Number);
const counts = numbers(given.clients);
const most = Math.max(...counts);

/** @returns tokens per second, and per second of a processor */
async function speedOf({ server: { url, pid }, fields }, clients) {
  const startMs = performance.now();
  const before = holds(pid).cpuSeconds;
  const generated = await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      const prompt = [40 + client, 41, 42, 43];
      const body = { prompt, max_tokens: tokens, temperature: 0, ignore_eos: true, ...fields };
      const response = await post(url, "/completions", JSON.stringify(body));
      if (response.status !== 200) throw new Error(await response.text());
      return (await response.json()).usage.completion_tokens;
    }),
  );
  if (generated.some((count) => count !== tokens)) throw new Error(`asked for ${tokens} tokens, got ${generated}`);
  const total = clients * tokens;
  return {
    perSecond: (1000 * total) / (performance.now() - startMs),
    perCpuSecond: total / (holds(pid).cpuSeconds - before),
  };
}

const round = (x) => Number(x.toPrecision(3));
/** Median, least and most. */
const spread = (list) => [median(list), Math.min(...list), Math.max(...list)].map(round);

const kinds = [];
const stops = [];
try {
  const weights = given.weights === undefined ? [] : ["--weights", given.weights];
  for (const alone of numbers(given["sparse-alone"])) {
    const limits = ["--sparse-alone", String(alone), "--max-sequences", String(most), ...weights];
    const server = await startRarefy(given.model, threads, limits);
    stops.push(server.stop);
    if (kinds.length === 0) kinds.push({ name: "rarefy, dense", server, fields: { rarefy: { sparsity: "dense" } } });
    kinds.push({ name: `rarefy, as calibrated, up to ${alone} alone`, server, fields: {} });
  }
  if (given.peer !== undefined) {
    const script = fileURLToPath(new URL("peer_llama_server.py", import.meta.url));
    const { url, pid, stop } = await startServer(given.python, [script, given.peer, String(threads), String(most)]);
    stops.push(stop);
    kinds.push({ name: "llama.cpp", server: { url: `${url}/v1`, pid }, fields: {} });
  }
  // Pages the weights in.
  for (const kind of kinds) await speedOf(kind, 2);
  const rows = [];
  for (const clients of counts) {
    const found = kinds.map(() => []);
    for (let r = 0; r < rounds; r++) {
      const order = [...kinds.keys()];
      for (const k of r % 2 === 0 ? order : order.toReversed()) found[k].push(await speedOf(kinds[k], clients));
    }
    for (const [k, { name }] of kinds.entries()) {
      const of = (field, by) => spread(found[k].map((one, r) => one[field] / (by === undefined ? 1 : by[r][field])));
      const row = { clients, name, tokensPerSecond: of("perSecond"), tokensPerCpuSecond: of("perCpuSecond") };
      rows.push(given.peer === undefined ? row : { ...row, ofLlamaCpp: of("perSecond", found.at(-1)) });
    }
  }
  const result = { model: given.model, weights: given.weights, peer: given.peer, threads, tokens, rounds, rows };
  if (given.json !== undefined) writeFileSync(given.json, `${JSON.stringify(result, null, 2)}\n`);
  console.table(rows.map((row) => Object.fromEntries(Object.entries(row).map(([name, value]) => [name, said(value)]))));
} finally {
  for (const stop of stops) await stop();
}

/** "12.1 (11.8-12.5)" */
function said(value) {
  return Array.isArray(value) ? `${value[0]} (${value[1]}-${value[2]})` : value;
}
