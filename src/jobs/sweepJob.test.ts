import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { notingQueue } from "../../test/support/notingQueue.js";
import { presetRecipe } from "../compress/index.js";
import { bundledModel, directoryFiles, readText } from "../io/index.node.js";
import { loadTokenizer, tokenizeText } from "../text/index.js";
import { openBullQueue } from "./bullQueue.node.js";
import { jobPath, tokensSha256 } from "./jobParts.js";
import { type JobQueue, memoryQueue } from "./jobQueue.js";
import { runSweep } from "./sweep.js";
import { sweepCandidates } from "./sweepCandidates.js";
import { runSweepJob } from "./sweepJob.js";
import { runWorker } from "./worker.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-queue-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const root = join(scratch, "root");
mkdirSync(root);
const books = readFileSync(fileURLToPath(new URL("../../models/text/books-eval.txt", import.meta.url)), "utf8");
writeFileSync(join(root, "eval.txt"), books.slice(0, 2000));

const source = directoryFiles(bundledModel("tiny-6m"));
const maxTokens = 64;
const evaluation = await tokenizeText(await loadTokenizer(source), await readText(join(root, "eval.txt")), {
  maxTokens,
});
const settings = {
  candidates: sweepCandidates([{ name: "magnitude-50", recipe: presetRecipe("magnitude-50") }], [0.3, 0.5]),
  evaluation,
  window: 64,
  maxWindows: 1,
  store: "packed" as const,
  threads: 1,
};
const text = { path: "./eval.txt", maxTokens, tokensSha256: await tokensSha256(evaluation) };
const overQueue = (queue: JobQueue) => ({ ...settings, workers: { queue, model: "tiny-6m", evaluation: text } });
const options = { root, scratch: join(scratch, "made"), threads: 1 };
const withoutTimes = (entries: readonly { row: object }[]) =>
  entries.map(({ row, ...entry }) => ({ ...entry, row: { ...row, elapsedMs: 0 } }));

const queue = notingQueue();

test("workers give the entries of a local run, one that stops gives its job back, and nothing is done twice", async () => {
  const local = await runSweep(source, join(scratch, "local"), settings);
  const stopped = new AbortController();
  const taken: string[] = [];
  const leaving = runWorker(queue, {
    ...options,
    signal: stopped.signal,
    onTaken({ id }) {
      taken.push(id);
      stopped.abort();
    },
  });
  const sweep = runSweep(source, join(scratch, "shared"), overQueue(queue));
  expect(await leaving).toEqual({ done: 0, failed: 0 });
  const worker = runWorker(queue, { ...options, idleMs: 50, onTaken: ({ id }) => taken.push(id) });
  const shared = await sweep;
  expect(await worker).toEqual({ done: 2, failed: 0 });
  expect(taken).toHaveLength(3);
  expect(new Set(taken)).toEqual(new Set(queue.jobs.map(({ id }) => id)));
  expect(withoutTimes(shared.entries)).toEqual(withoutTimes(local.entries));
  expect(readdirSync(options.scratch)).toEqual([]);

  // Another sweep of the same finds the results, with nobody at work.
  const again = await runSweep(source, join(scratch, "again"), overQueue(queue));
  expect(again.entries.slice(1)).toEqual(shared.entries.slice(1));
});

test("a job that is not to be trusted opens nothing and says why", async () => {
  const [job] = queue.jobs;
  const payload = job.payload as { model: object; evaluation: object };
  mkdirSync(join(root, "model"));
  writeFileSync(join(scratch, "secret.txt"), "secret");
  symlinkSync(join(scratch, "secret.txt"), join(root, "link.txt"));
  for (const name of ["config.json", "model.safetensors", "tokenizer.json"]) {
    symlinkSync(source.pathOf(name)!, join(root, "model", name));
  }
  writeFileSync(join(root, "other.txt"), books.slice(1000, 3000));
  const refused: [change: object, message: RegExp][] = [
    [{ version: "0.0.0" }, /this worker is rarefy .*, and the sweep "0\.0\.0"/],
    [{ name: "../up" }, /job .*: name/],
    [{ more: 1 }, /job .*more/],
    [{ maxWindows: 1e300 }, /maxWindows/],
    [{ recipe: { version: 1, stages: [{ type: "prune", method: "nothing" }] } }, /job .*stages/],
    [{ maxWindows: 2 }, /id: is not that of its content/],
    [{ model: { ...payload.model, path: "./model" } }, /"\.\/model\/.*leads out of this worker's `root`/],
    [{ model: { ...payload.model, path: "org/name" } }, /has no "org\/name"/],
    [{ model: { ...payload.model, weightsSha256: "0".repeat(64) } }, /another model as "tiny-6m" \(its weightsSha256/],
    ...["../secret.txt", join(scratch, "secret.txt"), "./link.txt"].map((path): [object, RegExp] => [
      { evaluation: { ...text, path } },
      /secret\.txt" leads out|link\.txt" leads out/,
    ]),
    [{ evaluation: { ...text, path: "./other.txt" } }, /another text as "\.\/other\.txt"/],
  ];
  for (const [change, message] of refused) {
    await expect(runSweepJob({ ...job, payload: { ...payload, ...change } }, options)).rejects.toThrow(message);
  }
  await expect(runSweepJob({ ...job, id: "../x" }, options)).rejects.toThrow(/invalid/i);
  expect(readdirSync(options.scratch)).toEqual([]);
});

test("what a worker gives back is checked, and can be measured anew", async () => {
  const lying = memoryQueue();
  const first = settings.candidates.slice(0, 1);
  const sweep = () => runSweep(source, join(scratch, "lied"), { ...overQueue(lying), candidates: first });
  const give = (result: unknown) => lying.process(async () => result, { once: true });
  const [one] = await Promise.allSettled([sweep(), give({ key: 1 })]);
  expect(one).toMatchObject({ reason: { message: expect.stringMatching(/the result of magnitude-0\.3: key/) } });
  const [two] = await Promise.allSettled([sweep(), give({ key: "0", name: "magnitude-0.3", row: { model: "m" } })]);
  expect(two).toMatchObject({
    status: "rejected",
    reason: { message: expect.stringMatching(/the result of magnitude-0\.3/) },
  });
  const [three] = await Promise.allSettled([sweep(), runWorker(lying, { ...options, root: scratch, once: true })]);
  expect(three).toMatchObject({
    reason: { message: expect.stringMatching(/candidate magnitude-0\.3: .*has no "\.\/eval\.txt"/) },
  });
  const [four] = await Promise.all([sweep(), runWorker(lying, { ...options, once: true })]);
  expect(four.entries).toHaveLength(2);
});

test("workers know their work, and a sweep what they do not do", async () => {
  const other = memoryQueue();
  const submitted = other.submit({ id: "1", kind: "constructor", payload: {} });
  await Promise.all([
    expect(submitted).rejects.toThrow(/knows no work "constructor"/),
    runWorker(other, { ...options, once: true }),
  ]);
  const keeping = { ...overQueue(other), keep: true };
  await expect(runSweep(source, join(scratch, "kept"), keeping)).rejects.toThrow(/leave no models/);
  expect(() => jobPath(join(tmpdir(), "x"))).toThrow(/does not lie below the current directory/);
  expect(jobPath("models/tiny-6m")).toBe("./models/tiny-6m");
});

test("an address that is none, and one where nobody answers", async () => {
  await expect(openBullQueue("http://127.0.0.1")).rejects.toThrow(/redis:\/\/host:port/);
  await expect(openBullQueue("redis://:secret@127.0.0.1:1")).rejects.toThrow(
    /^redis:\/\/127\.0\.0\.1:1: no Redis answers \(.*ECONNREFUSED/,
  );
});
