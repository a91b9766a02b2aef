// Damages files of every kind that is read and looks at how reading ends, on the built package:
//   npm run build && node scripts/mutate-readers.mjs [--inputs 100000] [--seed 1] [--only gguf,tokenizer] [--log FILE]
// Right are a result and an error that the package throws on purpose. Reported are other errors, anything over 5 s of
// processor time, and memory over twice that of undamaged inputs + 512 MB. Inputs follow from seed and number: a run that
// was stopped goes on where --log says it was, and `--first N --inputs 1` does one again. Exit code 1 when anything is reported.
import { fork } from "node:child_process";
import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { generator, modulesOfReaders, readersOf } from "./mutation/readers.mjs";
import { readOptions } from "./options.mjs";

const { values: options } = readOptions({
  options: {
    inputs: { type: "string", default: "100000" },
    first: { type: "string", default: "0" },
    seed: { type: "string", default: "1" },
    only: { type: "string" },
    log: { type: "string" },
    worker: { type: "boolean", default: false },
  },
});
const [seed, inputs] = [Number(options.seed), Number(options.inputs)];
const batch = 2000;
/** A batch whose worker says nothing for so long is done one by one. */
const silentMs = 120_000;
const slowMs = 5000;

if (options.worker) await work();
else process.exitCode = await supervise();

async function work() {
  const modules = Object.fromEntries(
    await Promise.all(
      Object.entries(modulesOfReaders).map(async ([name, path]) => [name, await import(`../dist/${path}.js`)]),
    ),
  );
  const { core } = modules;
  const readers = Object.entries(readersOf(modules)).filter(
    ([name]) => options.only?.split(",").includes(name) ?? true,
  );
  let normalBytes = 0;
  // A promise that nobody waits for.
  const stray = [];
  process.on("unhandledRejection", (error) => stray.push(error));
  process.on("message", async ({ first, count }) => {
    const found = [];
    const outcomes = {};
    for (let index = first; index < first + count; index++) {
      const [name, read] = readers[index % readers.length];
      const started = process.cpuUsage();
      let outcome = "read";
      try {
        await read(generator(seed, index));
      } catch (error) {
        outcome = error instanceof core.RarefyError ? error.constructor.name : "untyped";
        if (outcome === "untyped")
          found.push({ index, reader: name, problem: String(error?.stack ?? error).slice(0, 600) });
      }
      for (const error of stray.splice(0))
        found.push({ index, reader: name, problem: `unhandled: ${error}`.slice(0, 600) });
      const { user, system } = process.cpuUsage(started);
      const elapsedMs = (user + system) / 1000;
      if (elapsedMs > slowMs) found.push({ index, reader: name, problem: `${Math.round(elapsedMs)} ms` });
      const key = `${name}: ${outcome}`;
      outcomes[key] = (outcomes[key] ?? 0) + 1;
      if (index % 64 === 0) {
        const { rss } = process.memoryUsage();
        // The first inputs, damaged or not, are small; they stand for what is normal.
        if (index - first < 512 && normalBytes < rss && normalBytes < 400e6) normalBytes = Math.max(normalBytes, rss);
        if (rss > 2 * normalBytes + 512 * 2 ** 20) {
          found.push({ index, reader: name, problem: `${Math.round(rss / 2 ** 20)} MB of memory` });
        }
      }
    }
    process.send({ found, outcomes });
  });
  process.send("ready");
}

async function supervise() {
  const done = options.log && existsSync(options.log) ? lastOf(options.log) : undefined;
  let next = done?.next ?? Number(options.first);
  const outcomes = done?.outcomes ?? {};
  let reported = done?.reported ?? 0;
  const end = Number(options.first) + inputs;
  const note = (record) => options.log && appendFileSync(options.log, `${JSON.stringify(record)}\n`);
  let worker;
  const startedMs = Date.now();
  while (next < end) {
    worker ??= await start();
    const count = Math.min(batch, end - next);
    let answers = [await ask(worker, next, count)];
    if (answers[0] === undefined) {
      // The worker died or hangs: which input was it?
      worker.kill("SIGKILL");
      worker = await start();
      answers = [];
      for (let index = next; index < next + count; index++) {
        const answer = await ask(worker, index, 1);
        if (answer === undefined) {
          worker.kill("SIGKILL");
          worker = await start();
        }
        answers.push(answer ?? { found: [{ index, problem: "the process died or hung" }], outcomes: {} });
      }
    }
    for (const { found, outcomes: some } of answers) {
      for (const record of found) {
        reported++;
        note(record);
        if (reported <= 20) console.log(JSON.stringify(record));
      }
      for (const [key, n] of Object.entries(some)) outcomes[key] = (outcomes[key] ?? 0) + n;
    }
    next += count;
    note({ next, reported, outcomes, elapsedMs: Date.now() - startedMs });
  }
  worker?.kill();
  for (const key of Object.keys(outcomes).sort()) console.log(`${key.padEnd(40)}${outcomes[key]}`);
  console.log(`${next} inputs, ${reported} reported`);
  return reported > 0 ? 1 : 0;
}

function lastOf(log) {
  const records = readFileSync(log, "utf8").trimEnd().split("\n");
  return records.map((line) => JSON.parse(line)).findLast((record) => "next" in record);
}

function start() {
  const only = options.only === undefined ? [] : ["--only", options.only];
  const child = fork(fileURLToPath(import.meta.url), ["--worker", "--seed", options.seed, ...only], {
    stdio: ["ignore", "ignore", "ignore", "ipc"],
  });
  return new Promise((resolve, reject) => {
    child.once("message", () => resolve(child));
    child.once("exit", (code) =>
      reject(new Error(`the worker ended with ${code} before it began; is the package built?`)),
    );
  });
}

/** @returns undefined when the worker ends or is silent for too long */
function ask(child, first, count) {
  return new Promise((resolve) => {
    const settle = (answer) => {
      clearTimeout(timer);
      child.off("exit", ended);
      child.off("message", settle);
      resolve(answer);
    };
    const ended = () => settle(undefined);
    const timer = setTimeout(ended, silentMs);
    child.on("exit", ended);
    child.on("message", settle);
    child.send({ first, count });
  });
}
