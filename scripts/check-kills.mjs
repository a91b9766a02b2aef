// Kills every job that writes (signal 9) at many of its changes to the file system, and gives the same command again; runs two at
// once on one output; and runs on a disk that is full, and on one that is read-only. On the built package:
//   npm run build && node scripts/check-kills.mjs [--kills 216] [--only NAME] [--seed 1]
// Every result must have the bytes of one that was left alone, files of the user's beside it must be as they were, and nothing may be
// left of what was killed. A reader that comes between kill and repair must find the old result or the new one. Exit code 1 otherwise.
import { spawn, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Random } from "../dist/core/index.js";
import { resolveModel } from "../dist/io/index.node.js";
import { contentOf, difference } from "./kills/content.mjs";
import { serveHub } from "./kills/hub.mjs";
import { killedJobs, preparations, smallInputs } from "./kills/jobs.mjs";
import { readOptions } from "./options.mjs";

const { values: options } = readOptions({
  options: {
    kills: { type: "string", default: "216" },
    only: { type: "string" },
    seed: { type: "string", default: "1" },
  },
});
const root = fileURLToPath(new URL("..", import.meta.url));
const main = join(root, "dist/cli/main.js");
const preload = join(root, "scripts/kills/killAt.cjs");
const scratch = mkdtempSync(join(tmpdir(), "rarefy-kills-"));
const random = new Random(Number(options.seed));
const inputs = smallInputs(root, scratch);
const failures = [];
let hub;

/** Runs rarefy. @param kill { at, mode } or { countTo } */
function run(args, { env = {}, kill } = {}) {
  const killing = kill && {
    ...(kill.at !== undefined && { KILL_AT: String(kill.at), KILL_MODE: kill.mode }),
    ...(kill.countTo !== undefined && { KILL_COUNT: kill.countTo }),
  };
  return new Promise((resolve) => {
    const node = kill === undefined ? [] : ["--require", preload];
    const child = spawn(process.execPath, [...node, main, ...args, "--quiet"], {
      env: { ...process.env, ...env, ...killing },
      stdio: ["ignore", "ignore", "pipe"],
    });
    let error = "";
    child.stderr.setEncoding("utf8").on("data", (text) => {
      error += text;
    });
    child.on("close", (code, signal) => resolve({ code, killed: signal === "SIGKILL", error: error.trim() }));
  });
}

/** A directory of its own for each run, with files of the user's whose names are near those of jobs. */
function place(name) {
  const directory = join(scratch, "cases", name);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(join(directory, "out2.partial"), { recursive: true });
  const users = ["notes.txt", "out2.partial/thesis.txt", ".out.tmp", ".out.17-0badcafe.tmp", "out.txt", ".out.lock"];
  for (const user of users) writeFileSync(join(directory, user), `the user's ${user}`);
  return directory;
}

function commandOf(job, directory) {
  const output = join(directory, job.output ?? "out");
  if (!job.hub) return { args: [...job.args, "-o", output], output };
  const env = { HF_ENDPOINT: hub.origin, HF_HUB_CACHE: output, HF_HOME: join(scratch, "home") };
  return { args: job.args, output, env };
}

/** Makes what the job replaces. */
async function prepare(job, directory) {
  if (job.before === undefined) return;
  const { output } = commandOf(job, directory);
  const kept = join(scratch, "before", job.name.replaceAll(" ", "-"));
  if (!existsSync(kept)) {
    const made = await run([...job.before, "-o", kept]);
    if (made.code !== 0) throw new Error(`${job.name}: what it replaces was not made: ${made.error}`);
  }
  cpSync(kept, output, { recursive: true });
}

const short = (text) => text.split("\n").at(-1).slice(0, 160);

/** One job left alone, then killed at `kills` moments. */
async function killed(job, kills) {
  const alone = place("alone");
  await prepare(job, alone);
  const countTo = join(scratch, "count");
  const first = commandOf(job, alone);
  const finished = await run(first.args, { env: first.env, kill: { countTo } });
  if (finished.code !== 0) throw new Error(`${job.name} alone: ${finished.error}`);
  const expected = contentOf(alone);
  const changes = Number(readFileSync(countTo, "utf8"));
  const tally = { job: job.name, changes, kills: 0, same: 0, clean: 0 };
  for (let k = 0; k < kills; k++) {
    const directory = place("killed");
    await prepare(job, directory);
    const before = contentOf(directory);
    const at = 1 + Math.floor(((k + random.uniform()) * changes) / kills);
    const mode = ["before", "after", "middle"][random.integer(3)];
    const { args, env, output } = commandOf(job, directory);
    const end = await run(args, { env, kill: { at, mode } });
    if (!end.killed && end.code !== 0) failures.push(`${job.name} at ${at} ${mode}: ended with ${short(end.error)}`);
    if (end.killed) tally.kills++;
    if (job.before !== undefined) await readBetween(job, output, { before, expected }, `${at} ${mode}`);
    const again = await run(args, { env });
    const isFinished = job.once && /is there already/.test(again.error);
    if (again.code !== 0 && !isFinished)
      failures.push(`${job.name} at ${at} ${mode}, again: exit ${again.code}, ${short(again.error)}`);
    const wrong = difference(contentOf(directory), expected);
    const left = wrong?.split(", ").filter((part) => part.endsWith("is left"));
    if (wrong === undefined || left.length === wrong.split(", ").length) tally.same++;
    if (!left?.length) tally.clean++;
    if (wrong !== undefined) failures.push(`${job.name} at ${at} ${mode}: ${wrong}`);
  }
  return tally;
}

/** What stands between a kill and the next run must be one of the two results. */
async function readBetween(job, output, { before, expected }, when) {
  try {
    const { directory } = await resolveModel(output);
    const found = contentOf(directory, "/out");
    const of = (content) => Object.fromEntries(Object.entries(content).filter(([path]) => path.startsWith("/out/")));
    if (difference(found, of(before)) === undefined || difference(found, of(expected)) === undefined) return;
    failures.push(`${job.name} at ${when}: a reader found neither the old nor the new result`);
  } catch (error) {
    failures.push(`${job.name} at ${when}: a reader found nothing (${short(error.message)})`);
  }
}

/** Two at once on one output: one finishes, the other finishes too or says that it is busy. */
async function twice(job) {
  const alone = contentOf(join(scratch, "cases", "alone"));
  const directory = place("twice");
  await prepare(job, directory);
  const { args, env } = commandOf(job, directory);
  const ends = await Promise.all([run(args, { env }), run(args, { env })]);
  const late = job.once ? /another process works on|is there already/ : /another process works on/;
  const busy = ends.filter(({ code, error }) => code !== 0 && late.test(error)).length;
  const done = ends.filter(({ code }) => code === 0).length;
  for (const { code, error } of ends) {
    if (code !== 0 && !late.test(error)) failures.push(`${job.name} twice: ${short(error)}`);
  }
  const wrong = difference(contentOf(directory), alone);
  if (done === 0 || wrong !== undefined)
    failures.push(`${job.name} twice: ${done} finished, ${wrong ?? "right bytes"}`);
  return `${done} done, ${busy} busy`;
}

const mount = (...args) => spawnSync("mount", args).status === 0;

/** Runs a job on a file system of so many bytes. @param bytes undefined: large, and read-only */
async function onSmallDisk(job, bytes) {
  const disk = join(scratch, "disk");
  mkdirSync(disk, { recursive: true });
  if (!mount("-t", "tmpfs", "-o", `size=${bytes ?? "64m"}`, "tmpfs", disk)) return "cannot mount";
  try {
    writeFileSync(join(disk, "notes.txt"), "mine");
    if (bytes === undefined) mount("-o", "remount,ro", disk);
    const { args, env, output } = commandOf(job, disk);
    const { code, error } = await run(args, { env });
    const what = bytes === undefined ? "read-only" : `disk of ${bytes}`;
    if (code === 0) return bytes === undefined ? "EXIT 0" : "fits";
    if (
      !/disk is full|of disk are needed|has room for|cannot be (made|written)|ENOSPC|read-only/.test(error) ||
      /^\s+at /m.test(error)
    ) {
      failures.push(`${job.name}, ${what}: ${short(error)}`);
    }
    if (/--verbose shows the stack/.test(error)) failures.push(`${job.name}, ${what}: untyped ${short(error)}`);
    // States to go on from may stay; half-written files and results may not.
    const halves = Object.keys(contentOf(disk)).filter((path) => /\.tmp(\/|$)|\.lock-/.test(path));
    if (halves.length > 0) failures.push(`${job.name}, ${what}: left ${halves.join(", ")}`);
    if (!job.keepsParts && existsSync(output)) failures.push(`${job.name}, ${what}: a half result`);
    if (readFileSync(join(disk, "notes.txt"), "utf8") !== "mine")
      failures.push(`${job.name}, ${what}: the user's file`);
    return "refused";
  } finally {
    spawnSync("umount", [disk]);
  }
}

try {
  for (const args of preparations(inputs)) {
    const made = await run(args);
    if (made.code !== 0) throw new Error(`${args[0]}: ${made.error}`);
  }
  hub = await serveHub(inputs.model);
  const jobs = killedJobs(inputs).filter(({ name }) => options.only === undefined || name.startsWith(options.only));
  const rows = [];
  for (const job of jobs) {
    const tally = await killed(job, Math.ceil(Number(options.kills) / jobs.length));
    const row = { ...tally, twice: await twice(job) };
    if (job.before === undefined) {
      for (const size of ["60k", "700k", "1500k"]) row[`disk ${size}`] = await onSmallDisk(job, size);
      row["read-only"] = await onSmallDisk(job, undefined);
    }
    console.log(JSON.stringify(row));
    rows.push(row);
  }
  console.table(rows);
  const sum = (field) => rows.reduce((total, row) => total + row[field], 0);
  const moments = Math.ceil(Number(options.kills) / jobs.length) * jobs.length;
  console.log(
    `${sum("kills")} kills; of ${moments} runs ${sum("same")} ended in the same bytes, ${sum("clean")} left nothing behind`,
  );
  for (const failure of failures) console.log(`FAILED ${failure}`);
} finally {
  hub?.close();
  rmSync(scratch, { recursive: true, force: true });
}
process.exitCode = failures.length === 0 ? 0 : 1;
