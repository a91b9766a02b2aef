/**
 * Loads `rarefy serve` as careless clients would, and measures how fast it is.
 *
 *   node bench/serve-load.mjs [--model tiny-6m] [--clients 64] [--requests 10000] [--seed 1] [--kv-memory 128M] [--json FILE]
 *   node bench/serve-load.mjs --speed [--model ./dir] [--tokens 64] [--threads 2]
 *
 * The first form sends requests of every kind: streamed and whole, with random aborts and malformed bodies. It fails when one
 * is answered with anything but what it should be (429 is allowed), or when memory or descriptors still grow over the last three
 * quarters, and tells times, memory and descriptors. The second tells
 * tokens per second, and per second of a processor, at 1, 4 and 16 clients, dense and, where the model has thresholds, as sparse as they make it.
 */
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { median } from "./rounds.mjs";

const { values: given } = parseArgs({
  options: {
    model: { type: "string", default: "tiny-6m" },
    clients: { type: "string", default: "64" },
    requests: { type: "string", default: "10000" },
    tokens: { type: "string", default: "64" },
    threads: { type: "string", default: "2" },
    rounds: { type: "string", default: "3" },
    seed: { type: "string", default: "1" },
    "kv-memory": { type: "string", default: "128M" },
    speed: { type: "boolean", default: false },
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

/** Starts the command on a free port. */
async function start(extra = []) {
  const main = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
  const args = [main, "serve", `model=${given.model}`, "--port", "0", "--threads", given.threads, "--quiet", ...extra];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  process.once("exit", () => child.kill("SIGKILL"));
  const stop = () => {
    child.kill("SIGTERM");
    return exited;
  };
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /http:\S+/.exec(line)?.[0];
    if (url !== undefined) return { url, pid: child.pid, stop };
  }
  throw new Error(`the server did not start (${await exited})`);
}

/** Memory, descriptors and processor time of a process, where the system tells (Linux). */
function holds(pid) {
  try {
    const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
    const times = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1].split(" ");
    // User and system, in hundredths of a second.
    const cpuSeconds = (Number(times[11]) + Number(times[12])) / 100;
    const descriptors = readdirSync(`/proc/${pid}/fd`).length;
    return { residentMiB: Math.round(Number(rss) / 1024), descriptors, cpuSeconds };
  } catch {
    return {};
  }
}

const percentiles = (list) => {
  const sorted = list.toSorted((a, b) => a - b);
  const at = (share) =>
    Math.round(sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN);
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
};

const post = (url, path, body, signal) =>
  fetch(`${url}${path}`, { method: "POST", headers: { "content-type": "application/json" }, body, signal });

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
  const server = await start(["--max-queue", "32", "--kv-memory", given["kv-memory"]]);
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

/** Tokens per second of so many clients that each ask for one text. */
async function tokensPerSecond({ url, pid }, clients, fields) {
  const tokens = number("tokens");
  const startMs = performance.now();
  const before = holds(pid).cpuSeconds;
  const counts = await Promise.all(
    Array.from({ length: clients }, async (_, seed) => {
      const body = { prompt: [40 + seed, 41, 42, 43], max_tokens: tokens, temperature: 0, ignore_eos: true, ...fields };
      const response = await post(url, "/completions", JSON.stringify(body));
      if (response.status !== 200) throw new Error(await response.text());
      return (await response.json()).usage.completion_tokens;
    }),
  );
  const total = counts.reduce((a, b) => a + b, 0);
  const perSecond = (1000 * total) / (performance.now() - startMs);
  return { perSecond, perCpuSecond: total / (holds(pid).cpuSeconds - before) };
}

async function speed() {
  const alone = [0, 1, 4];
  const servers = [];
  for (const count of alone) servers.push({ count, ...(await start(["--sparse-alone", String(count)])) });
  const rows = [];
  try {
    const kinds = [{ name: "dense", server: servers[1], fields: { rarefy: { sparsity: "dense" } } }];
    for (const server of servers)
      kinds.push({ name: `as calibrated, up to ${server.count} alone`, server, fields: {} });
    for (const { server } of kinds) await tokensPerSecond(server, 2, {});
    for (const clients of [1, 4, 16]) {
      const found = kinds.map(() => []);
      // In turns, so that what disturbs one disturbs all.
      for (let round = 0; round < number("rounds"); round++) {
        for (const [k, { server, fields }] of kinds.entries())
          found[k].push(await tokensPerSecond(server, clients, fields));
      }
      for (const [k, { name }] of kinds.entries()) {
        const of = (field) => Math.round(median(found[k].map((one) => one[field])));
        rows.push({ clients, name, tokensPerSecond: of("perSecond"), tokensPerCpuSecond: of("perCpuSecond") });
      }
    }
  } finally {
    for (const server of servers) await server.stop();
  }
  return { model: given.model, threads: number("threads"), tokens: number("tokens"), rows };
}

const result = given.speed ? await speed() : await load();
if (given.json !== undefined) writeFileSync(given.json, JSON.stringify(result, null, 2));
console.log(JSON.stringify(result, null, 2));
process.exitCode = result.failed > 0 ? 1 : 0;
