import { appendFile, mkdir, mkdtemp, readdir, rm, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, test } from "vitest";
import { FormatError, UsageError } from "../core/index.js";
import { directoryFiles } from "../io/index.node.js";
import type { LogRecord, State, Training } from "../train/index.js";
import { RunDirectory } from "./runDirectory.js";
import { watchSource } from "./source.js";
import { StateDirectory } from "./stateDirectory.js";
import { readEntry } from "./sweepEntries.js";

const root = await mkdtemp(join(tmpdir(), "rarefy-jobs-"));
afterAll(() => rm(root, { recursive: true }));
let work: string;
beforeEach(async () => {
  work = await mkdtemp(join(root, "case-"));
});

const job = "a".repeat(64);
const record = (step: number): LogRecord => ({ step, loss: 2, rate: 0.1, elapsedMs: 1 });
const run = () => new RunDirectory(join(work, "out.run"), 10);

/** A run of 10 steps that stopped after 3. */
async function stopped(state: State = { step: 3, weights: { w: new Float32Array(2) } }): Promise<void> {
  const directory = run();
  await directory.open(job);
  const log = await directory.openLog(0);
  for (const step of [1, 2, 3]) log.add(record(step));
  await log.flush();
  await directory.save(job, { step: 3, state } as unknown as Training, 7.5);
}

describe("the state of a training run", () => {
  test("comes back, with the log as far as it goes", async () => {
    await stopped();
    await appendFile(join(work, "out.run", "log.jsonl"), `${JSON.stringify(record(4))}\n{"step":5`);
    const found = await run().open(job);
    expect(found).toMatchObject({ perplexityBefore: 7.5, state: { step: 3 } });
    expect((await run().openLog(3)).records).toEqual([1, 2, 3].map(record));
    await run().remove();
    expect(await readdir(work)).toEqual([]);
  });

  test("of another job is refused", async () => {
    await stopped();
    await expect(run().open("b".repeat(64))).rejects.toThrow(UsageError);
  });

  test.each<[string, State]>([
    ["a step that is none", { step: Number.NaN }],
    ["a step beyond the run", { step: 1e9 }],
    ["no step", { weights: {} }],
  ])("with %s is a FormatError", async (_name, state) => {
    await stopped(state);
    await expect(run().open(job)).rejects.toThrow(/run\.step/);
  });

  test("without a run is a FormatError", async () => {
    await stopped();
    await new StateDirectory(join(work, "out.run"), ["log.jsonl", "model"]).save(4, { job });
    await expect(run().open(job)).rejects.toThrow(FormatError);
  });

  test.each(["null\n", "", `${JSON.stringify(record(1))}\n${JSON.stringify(record(3))}\n`, "{}\n"])(
    "with the log %j is a FormatError that names the line",
    async (log) => {
      await stopped();
      await writeFile(join(work, "out.run", "log.jsonl"), log);
      await expect(run().openLog(3)).rejects.toThrow(/log\.jsonl: line \d: not the record of this step/);
    },
  );
});

test.each(["null", "{}", '{"key":"k","name":"x"}', '{"key":"k","name":"x","row":{"model":3}}'])(
  "the entry %s of a sweep is a FormatError",
  async (text) => {
    const path = join(work, "wanda-50.json");
    await writeFile(path, text);
    await expect(readEntry(path)).rejects.toThrow(FormatError);
    expect(await readEntry(join(work, "other.json"))).toBeUndefined();
  },
);

test("a source that is written to while a job reads it is noticed, whatever its size", async () => {
  const directory = join(work, "source");
  await mkdir(directory);
  for (const name of ["config.json", "model.safetensors"]) await writeFile(join(directory, name), "1234");
  const check = await watchSource(directoryFiles(directory));
  await check();
  await writeFile(join(directory, "model.safetensors"), "4321");
  await utimes(join(directory, "model.safetensors"), 1, 1);
  await expect(check()).rejects.toThrow(/model.safetensors: it was changed while it was read/);
});
