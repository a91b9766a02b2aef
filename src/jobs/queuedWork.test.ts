import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { notingQueue } from "../../test/support/notingQueue.js";
import { evaluateQuality, resultRow } from "../eval/index.js";
import { bundledModel, directoryFiles, readText } from "../io/index.node.js";
import { openModel } from "../pipeline/index.js";
import { parseKv } from "../runtime/index.js";
import { measureTasks, openTaskMeasure } from "../tasks/index.js";
import { taskFolder } from "../tasks/index.node.js";
import { loadTokenizer, tokenizeText } from "../text/index.js";
import { experiments } from "../train/index.js";
import { planOf } from "../train/internal.js";
import { type EvaluationTask, type EvaluationText, evaluateOverQueue, runEvaluationJob } from "./evaluationJob.js";
import { cellsOverQueue, runExperimentJob } from "./experimentJob.js";
import { jobModelOf, tokensSha256 } from "./jobParts.js";
import type { Job } from "./jobQueue.js";
import { runExperimentCells } from "./runExperimentDirectory.js";
import { runWorker } from "./worker.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-queued-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const root = join(scratch, "root");
mkdirSync(root);
const repository = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
writeFileSync(join(root, "eval.txt"), readFileSync(repository("models/text/books-eval.txt"), "utf8").slice(0, 2000));
cpSync(repository("test/golden/lm-eval"), join(root, "tasks"), { recursive: true });
const options = { root, scratch: join(scratch, "made"), threads: 1 };

const source = directoryFiles(bundledModel("tiny-6m"));
const tokenizer = await loadTokenizer(source);
const tokens = await tokenizeText(tokenizer, await readText(join(root, "eval.txt")), { maxTokens: 64 });
const prefill = { denseFirst: 0 };
const how = { limit: 2, shots: 1, seed: 3, resamples: 0 };
const measure = await openTaskMeasure(source, { tasks: taskFolder(join(root, "tasks")) }, ["golden_choice.yaml"], {
  ...{ ...how, tokenizer, scorer: { prefill, bos: undefined } },
});
const queue = notingQueue();
const evaluation = {
  ...{ queue, name: "tiny-6m", model: await jobModelOf(source, "tiny-6m"), prefill, kv: "int8" },
  text: {
    ...{ path: "./eval.txt", maxTokens: 64, tokensSha256: await tokensSha256(tokens) },
    ...{ convention: "rolling" as const, window: 32, stride: 16, maxWindows: 2 },
  },
  tasks: [{ ...how, folder: "./tasks", name: "golden_choice.yaml", asked: measure.tasks.map(({ sha256 }) => sha256) }],
};

test("an evaluation over workers is the row of a local one, and nothing is measured twice", async () => {
  using opened = await openModel(source, { threads: 1 });
  const { model } = opened;
  const variant = { name: "tiny-6m", model, thresholds: model.thresholds, kv: parseKv("int8") };
  const cut = { convention: "rolling" as const, window: 32, stride: 16, maxWindows: 2, prefill };
  const [quality] = await evaluateQuality([variant], tokens, cut);
  const tasks = await measureTasks(variant, measure);
  const local = resultRow({ ...variant, model: "tiny-6m", weights: model.weights, quality, tasks });
  const worker = runWorker(queue, { ...options, idleMs: 50 });
  expect(await evaluateOverQueue(evaluation)).toEqual(JSON.parse(JSON.stringify(local)));
  expect(await worker).toEqual({ done: 2, failed: 0 });
  // The same is asked again, and nobody is at work.
  expect(await evaluateOverQueue(evaluation)).toMatchObject({ nll: local.nll });
  const asked = (first: number) => queue.jobs.slice(first, first + 2).map(({ id }) => id);
  expect(new Set(asked(2))).toEqual(new Set(asked(0)));
});

test("an evaluation that is not to be trusted opens nothing and says why", async () => {
  type Payload = Record<"model" | "text" | "task" | "settings", object>;
  // Both are asked for at once, in either order.
  const [text, task] = (["text", "task"] as const).map(
    (part) => queue.jobs.find(({ payload }) => (payload as Payload)[part] !== undefined)!,
  );
  writeFileSync(join(scratch, "secret.yaml"), "task: secret");
  symlinkSync(join(scratch, "secret.yaml"), join(root, "tasks", "link.yaml"));
  writeFileSync(join(root, "other.txt"), "the sea and the ships and the wind ".repeat(30));
  const signed = async (job: Job, change: object) => {
    const asked = notingQueue();
    const { model, settings, text, task } = { ...(job.payload as Payload), ...change } as Payload;
    const waiting = new AbortController();
    const all = {
      ...evaluation,
      ...settings,
      model: model as typeof evaluation.model,
      queue: asked,
      signal: waiting.signal,
    };
    const tasks = task && [task as EvaluationTask];
    const done = evaluateOverQueue({ ...all, text: text as EvaluationText, tasks }).catch(() => {});
    while (asked.jobs.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    waiting.abort();
    await done;
    return asked.jobs[0];
  };
  const { payload } = text as { payload: Payload };
  const refused: [job: Job, message: RegExp][] = [
    [{ ...text, payload: { ...payload, more: 1 } }, /more/],
    [{ ...text, payload: { ...payload, version: "0" } }, /this worker is rarefy .*, and the evaluation "0"/],
    [{ ...text, payload: { ...payload, task: (task.payload as Payload).task } }, /beside a text/],
    [{ ...text, payload: { ...payload, settings: { prefill: "dense" } } }, /id: is not that of its content/],
    [await signed(text, { text: { ...evaluation.text, path: "./other.txt" } }), /another text as "\.\/other\.txt"/],
    [await signed(text, { text: { ...evaluation.text, path: "../secret.yaml" } }), /leads out of this worker's `root`/],
    [await signed(task, { task: { ...evaluation.tasks[0], name: "link.yaml" } }), /leads out of this worker's `root`/],
    [await signed(task, { task: { ...evaluation.tasks[0], folder: ".." } }), /leads out of this worker's `root`/],
    [await signed(task, { task: { ...evaluation.tasks[0], limit: 1 } }), /another task, or other data/],
    [await signed(text, { settings: { kv: "nothing" } }), /nothing/],
  ];
  for (const [job, message] of refused) await expect(runEvaluationJob(job, options)).rejects.toThrow(message);
});

test("cells of an experiment over workers are those of a local run; what is no cell, or no text of it, is refused", async () => {
  const keys = [0, 1].map((seed) => `tone-model0-seed${seed}`);
  const settings = { scale: "smoke", seeds: 2, texts: ".", model: "tiny-6m", device: "wasm" } as const;
  const local = await runExperimentCells("qiren", join(scratch, "local"), keys, settings);
  const cells = notingQueue();
  const workers = { queue: cells, model: "tiny-6m", textPath: (name: string) => `./${name}` };
  const worker = runWorker(cells, { ...options, idleMs: 50 });
  const shared = await runExperimentCells("qiren", join(scratch, "shared"), keys, { ...settings, workers });
  expect(shared).toEqual(local);
  expect(await worker).toEqual({ done: 2, failed: 0 });
  expect(readdirSync(options.scratch)).toEqual([]);

  const [job] = cells.jobs;
  const payload = job.payload as { key: string };
  const refused: [change: object, message: RegExp][] = [
    [{ experiment: "constructor" }, /experiment: there is no "constructor"/],
    [{ experiment: "selection" }, /measures time/],
    [{ key: "tone-model9-seed0" }, /key: is none of the experiment's cells/],
    [{ key: keys.find((key) => key !== payload.key) }, /id: is not that of its content/],
    [{ seeds: 1e9 }, /seeds/],
    [{ version: "0" }, /and the experiment "0"/],
    [{ model: { path: "../x", identity: "x" } }, /leads out of this worker's `root`/],
    [{ model: { path: "tiny-6m", identity: "x" } }, /another model as "tiny-6m"/],
  ];
  for (const [change, message] of refused) {
    await expect(runExperimentJob({ ...job, payload: { ...payload, ...change } }, options)).rejects.toThrow(message);
  }
  // A text that is another one here.
  writeFileSync(join(root, "calib.txt"), "the wind");
  const reads = notingQueue();
  const { experiment } = await experiments.remoe();
  const readText = async () => "ships and the sea";
  const elsewhere = await cellsOverQueue(experiment, { ...workers, queue: reads }, { scale: "smoke", readText });
  const waiting = new AbortController();
  const asked = elsewhere.run(planOf(experiment, { scale: "smoke" })[0], waiting).catch(() => {});
  while (reads.jobs.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  waiting.abort();
  await asked;
  await expect(runExperimentJob(reads.jobs[0], options)).rejects.toThrow(/another text as "\.\/calib\.txt"/);
});
