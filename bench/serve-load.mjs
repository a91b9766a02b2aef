/**
 * Loads `rarefy serve` as careless clients would.
 *
 *   node bench/serve-load.mjs [--model tiny-6m] [--clients 64] [--requests 10000] [--seed 1] [--kv-memory 128M] [--json FILE]
 *
 * Sends requests of every kind: streamed and whole, with random aborts and malformed bodies. It fails when one
 * is answered with anything but what it should be (429 is allowed), or when memory or descriptors still grow over the last three
 * quarters, and tells times, memory and descriptors.
 */
import { writeFileSync } from "node:fs";
import { readOptions } from "../scripts/options.mjs";
import { holds, post, startRarefy } from "./serving.mjs";

const { values: given } = readOptions({
  options: {
    model: { type: "string", default: "tiny-6m" },
    clients: { type: "string", default: "64" },
    requests: { type: "string", default: "10000" },
    threads: { type: "string", default: "2" },
    seed: { type: "string", default: "1" },
    "kv-memory": { type: "string", default: "128M" },
    json: { type: "string" },
  },
});
const number = (name) => Number(given[name]);

/** xorshift32 */
function randomOf(seed) {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

const percentiles = (list) => {
  const sorted = list.toSorted((a, b) => a - b);
  const at = (share) =>
    Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN);
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
};

/** What a careless client may send: its body, and the statuses that it may get. */
function request(random) {
  const words = "the sea and a ship of wood that went far over the water to a town".split(" ");
  const text = Array.from(
    { length: 1 + Math.floor(random() * 40) },
    () => words[Math.floor(random() * words.length)],
  ).join(" ");
  const tokens = 1 + Math.floor(random() * 16);
  const stream = random() < 0.5;
  const common = { max_tokens: tokens, temperature: random() < 0.5 ? 0 : 1, stream, seed: Math.floor(random() * 1e6) };
  const kind = random();
  if (kind < 0.08) return { path: "/completions", body: '{"prompt": "the', expected: [400] };
  if (kind < 0.12) return { path: "/completions", body: JSON.stringify({ prompt: 5 }), expected: [400] };
  if (kind < 0.15)
    return { path: "/chat/completions", body: JSON.stringify({ messages: [{ role: "x" }] }), expected: [400] };
  if (kind < 0.17) return { path: "/nothing", body: "{}", expected: [404] };
  if (kind < 0.19)
    return { path: "/completions", body: JSON.stringify({ prompt: "x".repeat(200_000), ...common }), expected: [400] };
  const abortAfterMs = random() < 0.15 ? random() * 200 : undefined;
  if (kind < 0.6) {
    const body = { messages: [{ role: "user", content: text }], ...common };
    return { path: "/chat/completions", body: JSON.stringify(body), expected: [200, 429], stream, abortAfterMs };
  }
  const body = { prompt: text, ...common, ...(random() < 0.2 && { logprobs: 2, echo: true }) };
  return { path: "/completions", body: JSON.stringify(body), expected: [200, 429], stream, abortAfterMs };
}

async function load() {
  const server = await startRarefy(given.model, given.threads, [
    "--max-queue",
    "32",
    "--kv-memory",
    given["kv-memory"],
  ]);
  const before = holds(server.pid);
  const [clients, requests] = [number("clients"), number("requests")];
  const random = randomOf(number("seed"));
  const statuses = {};
  const problems = [];
  const times = [];
  const firsts = [];
  let aborted = 0;
  let sent = 0;
  /** What the server held when each quarter of the requests had been sent. */
  const quarters = [];
  const client = async () => {
    while (sent < requests) {
      if (++sent % Math.ceil(requests / 4) === 0) quarters.push(holds(server.pid));
      const { path, body, expected, stream, abortAfterMs } = request(random);
      const signal = abortAfterMs === undefined ? undefined : AbortSignal.timeout(Math.round(abortAfterMs));
      const startMs = performance.now();
      try {
        const response = await post(server.url, path, body, signal);
        let text = "";
        let firstMs;
        const decoder = new TextDecoder();
        for await (const part of response.body) {
          firstMs ??= performance.now() - startMs;
          text += decoder.decode(part, { stream: true });
        }
        statuses[response.status] = (statuses[response.status] ?? 0) + 1;
        if (!expected.includes(response.status)) problems.push(`${path} ${response.status}: ${text.slice(0, 200)}`);
        if (response.status === 200 && stream && !text.endsWith("data: [DONE]\n\n"))
          problems.push(`${path}: a stream without end`);
        if (response.status === 200) times.push(performance.now() - startMs);
        if (response.status === 200 && stream) firsts.push(firstMs);
        if (response.status === 429) await new Promise((resolve) => setTimeout(resolve, 50 + 200 * random()));
      } catch (error) {
        if (signal?.aborted) aborted++;
        else problems.push(`${path}: ${error.cause?.message ?? error.message}`);
      }
    }
  };
  const startMs = performance.now();
  await Promise.all(Array.from({ length: clients }, client));
  const seconds = (performance.now() - startMs) / 1000;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const metrics = await (await fetch(server.url.replace("/v1", "/metrics"))).text();
  const active = /rarefy_active_sequences\S* (\d+)/.exec(metrics)?.[1];
  if (active !== "0") problems.push(`${active} texts are still run`);
  const after = holds(server.pid);
  const [{ residentMiB, descriptors } = {}] = quarters;
  // A garbage collector is not exact; a leak of 10 kB a request would be 75 MiB by the end of 10,000.
  if (after.residentMiB > 1.2 * residentMiB + 32) problems.push(`resident ${residentMiB} -> ${after.residentMiB} MiB`);
  if (after.descriptors > descriptors + 8) problems.push(`descriptors ${descriptors} -> ${after.descriptors}`);
  const code = await server.stop();
  if (code !== 0) problems.push(`the server ended with ${code}`);
  const result = {
    clients,
    requests,
    seconds: Math.round(seconds),
    statuses,
    aborted,
    wholeMs: percentiles(times),
    firstMs: percentiles(firsts),
  };
  return {
    ...result,
    memory: { before, quarters, after },
    problems: problems.slice(0, 20),
    failed: problems.length,
  };
}

const result = await load();
if (given.json !== undefined) writeFileSync(given.json, JSON.stringify(result, null, 2));
console.log(JSON.stringify(result, null, 2));
process.exitCode = result.failed > 0 ? 1 : 0;
