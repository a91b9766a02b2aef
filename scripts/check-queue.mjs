/**
 * A sweep over workers gives the table of a local run, although one of them is killed: starts a Redis server, sweeps 24 candidates
 * of the embedded model here, then over two worker processes, one of which gets SIGKILL in the middle of a candidate while another
 * takes its place; and compares all entries. Everything but times, and what was chosen by them, is the same.
 *
 *   node scripts/check-queue.mjs [--redis PATH]
 *
 * Wants a build, and redis-server (by default the one on PATH; libraries of its own by LD_LIBRARY_PATH).
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { isDeepStrictEqual } from "node:util";
import { readOptions } from "./options.mjs";

const { values } = readOptions({ options: { redis: { type: "string", default: "redis-server" } } });
const rarefy = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "rarefy-queue-"));
const children = new Set();

function start(command, args) {
  const child = spawn(command, args, { cwd: folder, stdio: ["ignore", "pipe", "pipe"] });
  const run = { child, output: "" };
  const add = (data) => {
    run.output += data;
  };
  child.stdout.on("data", add);
  child.stderr.on("data", add);
  children.add(child);
  run.ended = new Promise((resolve) => {
    child.on("error", (error) => resolve(error.message));
    child.on("exit", (code, signal) => resolve(signal ?? code));
  }).finally(() => children.delete(child));
  return run;
}

async function finished(run) {
  const code = await run.ended;
  if (code !== 0) throw new Error(`ended with ${code}:\n${run.output.slice(-3000)}`);
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

const sweepArguments = [
  ...["sweep", "tiny-6m", "--recipe", "magnitude-50", "wanda-50", "sparsegpt-50", "--sparsity", "0.3..0.65/0.05"],
  ...["--calib", "calib.txt", "--text", "eval.txt", "--window", "64", "--calibration-windows", "4"],
  ...["--max-windows", "4", "--threads", "1"],
];
const sweep = (output, ...more) => start(process.execPath, [rarefy, ...sweepArguments, "-o", output, ...more]);

const read = (output) => JSON.parse(readFileSync(join(folder, output, "sweep.json"), "utf8")).entries;
/** Without times, and without what `structure: auto` chooses by times: what weights run as. Sums of other kernels differ by rounding. */
const withoutTimes = ({ row: { elapsedMs: _, runsAs: _chosen, ...row }, ...entry }) =>
  JSON.parse(JSON.stringify({ ...entry, row }), (_key, value) =>
    typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)) : value,
  );

try {
  const text = (name, characters) =>
    readFileSync(new URL(`../models/text/${name}`, import.meta.url), "utf8").slice(0, characters);
  writeFileSync(join(folder, "calib.txt"), text("calib.txt", 4000));
  writeFileSync(join(folder, "eval.txt"), text("books-eval.txt", 4000));

  const startMs = performance.now();
  await finished(sweep("local"));
  const localMs = performance.now() - startMs;
  const local = read("local");

  const port = await freePort();
  const redis = start(values.redis, ["--port", String(port), "--bind", "127.0.0.1", "--save", ""]);
  while (!redis.output.includes("Ready to accept connections")) {
    const ended = await Promise.race([redis.ended.then((code) => ({ code })), sleep(50)]);
    if (ended) throw new Error(`${values.redis} did not start (${ended.code}): ${redis.output}`);
  }
  const url = `redis://127.0.0.1:${port}`;
  const worker = (name) =>
    start(process.execPath, [
      ...[rarefy, "worker", "--queue", url, "--threads", "1", "--idle-exit", "20", "--lock-seconds", "10", "--json"],
      ...["--scratch", join(folder, "scratch", name)],
    ]);
  const queueStartMs = performance.now();
  const shared = sweep("shared", "--queue", url, "--json");
  let failed;
  shared.ended.then((code) => {
    failed = code;
  });
  // The source is measured here before there are jobs; workers with nothing to do would leave.
  const measured = () => existsSync(join(folder, "shared", "source.json"));
  while (!measured() && failed === undefined) await sleep(50);
  const victim = worker("a");
  const other = worker("b");
  // In the middle of a candidate, after some were done.
  const doneBy = () => {
    const names = existsSync(join(folder, "shared")) ? readdirSync(join(folder, "shared")) : [];
    return names.filter((name) => name.endsWith(".json") && name !== "source.json").length;
  };
  while (!(doneBy() >= 6 && victim.output.slice(-200).includes("block"))) {
    if (failed !== undefined) throw new Error(`the sweep ended with ${failed} before a kill:\n${shared.output}`);
    await sleep(10);
  }
  victim.child.kill("SIGKILL");
  const killedAt = doneBy();
  await finished(shared);
  const sharedMs = performance.now() - queueStartMs;
  await finished(other);
  const entries = read("shared");
  const unlike = entries.filter((entry, i) => !isDeepStrictEqual(withoutTimes(entry), withoutTimes(local[i])));
  console.log(`${local.length - 1} candidates here: ${(localMs / 1000).toFixed(1)} s`);
  console.log(`over two workers, one killed after ${killedAt} results: ${(sharedMs / 1000).toFixed(1)} s`);
  console.log(`the other worker: ${JSON.stringify(JSON.parse(other.output.slice(other.output.lastIndexOf("{"))))}`);
  console.log(
    `entries that differ in anything but times and what was chosen by them: ${unlike.length} of ${entries.length}`,
  );
  for (const entry of unlike) console.log(JSON.stringify([entry, local[entries.indexOf(entry)]]));
  if (entries.length !== 25 || local.length !== 25 || unlike.length > 0) process.exitCode = 1;
} finally {
  for (const child of children) child.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
