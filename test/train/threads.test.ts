import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random, UsageError } from "../../src/core/index.js";
import { type Cell, type CellOutcome, type Experiment, runExperiment } from "../../src/train/index.js";
import { ensureInstalled, rarefy } from "../support/rarefy.js";

const cells = Array.from({ length: 9 }, (_, i): Cell => ({ key: `cell-${i}`, seed: i, settings: { i } }));

/** Reports the results in the order of the cells. */
const experiment: Experiment = {
  id: "squares",
  title: "Squares",
  description: "",
  seeds: { smoke: 1, laptop: 1, gpu: 1 },
  plan: () => cells,
  run: async (cell) => ({ square: cell.seed ** 2 }),
  report: async (finished) => ({
    protocol: [],
    tables: [{ title: "Squares", columns: ["square"], rows: finished.map(({ result }) => [String(result.square)]) }],
    figures: [],
    notes: [],
  }),
};

function inMemory() {
  const outcomes = new Map<string, CellOutcome>();
  return {
    outcomes,
    load: async (cell: Cell) => outcomes.get(cell.key),
    save: async (cell: Cell, outcome: CellOutcome) => void outcomes.set(cell.key, outcome),
    stateOf: () => ({ load: async () => undefined, save: async () => {} }),
  };
}

const inputs = {
  scale: "smoke",
  device: "wasm",
  readText: async () => "",
  openModel: async (): Promise<never> => {
    throw new Error("not used");
  },
} as const;

/** Threads that take a random time, and know how many of them worked at once. */
function threads(count: number, run: (cell: Cell) => void = () => {}) {
  const random = new Random(count);
  const seen = { now: 0, most: 0, begun: [] as string[], ended: 0 };
  return {
    seen,
    count,
    async run(cell: Cell, { signal }: { signal?: AbortSignal }) {
      seen.begun.push(cell.key);
      seen.most = Math.max(seen.most, ++seen.now);
      await new Promise((resolve) => setTimeout(resolve, 1 + random.integer(8)));
      seen.now--;
      seen.ended++;
      signal?.throwIfAborted();
      run(cell);
      return { square: cell.seed ** 2 };
    },
  };
}

describe("cells on several threads", () => {
  test.each([1, 2, 4, 20])("%i at once give what one after the other gives", async (count) => {
    const alone = await runExperiment(experiment, { ...inputs, store: inMemory() });
    const elsewhere = threads(count);
    const shared = await runExperiment(experiment, { ...inputs, store: inMemory(), elsewhere });
    expect(shared).toEqual(alone);
    expect(elsewhere.seen).toMatchObject({ most: Math.min(count, cells.length), begun: cells.map(({ key }) => key) });
  });

  test("the first failure stops the rest, is thrown when all have ended, and keeps what was finished", async () => {
    const store = inMemory();
    const elsewhere = threads(3, ({ seed }) => {
      if (seed === 4) throw new UsageError("cell 4 is wrong");
    });
    await expect(runExperiment(experiment, { ...inputs, store, elsewhere })).rejects.toThrow("cell 4 is wrong");
    expect(elsewhere.seen.ended).toBe(elsewhere.seen.begun.length);
    expect(elsewhere.seen.begun.length).toBeLessThan(cells.length);
    expect([...store.outcomes.keys()]).toEqual(expect.arrayContaining(["cell-0", "cell-1"]));
  });

  test("a stop reaches every thread; what is in the store is not run again", async () => {
    const store = inMemory();
    const controller = new AbortController();
    const first = threads(2, ({ seed }) => {
      if (seed === 3) controller.abort(new Error("stop"));
    });
    await expect(
      runExperiment(experiment, { ...inputs, store, elsewhere: first, signal: controller.signal }),
    ).rejects.toThrow("stop");
    const done = [...store.outcomes.keys()];
    const second = threads(2);
    await runExperiment(experiment, { ...inputs, store, elsewhere: second });
    expect([...done, ...second.seen.begun].sort()).toEqual(cells.map(({ key }) => key));
  });

  test("an experiment that measures time runs its cells here, one after the other", async () => {
    const elsewhere = threads(4);
    await runExperiment({ ...experiment, timed: true }, { ...inputs, store: inMemory(), elsewhere });
    expect(elsewhere.seen.begun).toEqual([]);
  });

  test("progress counts what is left to run, over all threads", async () => {
    const store = inMemory();
    await store.save(cells[5], { result: { square: 25 }, device: "wasm" });
    const events: { done: number; total?: number }[] = [];
    const elsewhere = threads(3);
    await runExperiment(experiment, { ...inputs, store, elsewhere, onProgress: (event) => events.push(event) });
    expect(events.at(-1)).toMatchObject({ done: 8, total: 8, unit: "runs" });
  });
});

describe("rarefy experiment run --threads", () => {
  const scratch = mkdtempSync(join(tmpdir(), "rarefy-threads-"));
  const at = (name: string) => join(scratch, name);
  const run = (output: string, ...more: string[]) => ["experiment", "run", "spirals", "-o", output, ...more];
  beforeAll(ensureInstalled);
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  const cellsOf = (output: string) =>
    Object.fromEntries(
      readdirSync(join(output, "cells")).map((name) => [name, readFileSync(join(output, "cells", name), "utf8")]),
    );

  test("gives the same bytes as one thread", async () => {
    const smoke = ["--scale", "smoke", "--seeds", "2", "--quiet"];
    expect(await rarefy(run(at("one"), ...smoke))).toMatchObject({ code: 0, stderr: "" });
    expect(await rarefy(run(at("two"), ...smoke, "--threads", "2"))).toMatchObject({ code: 0, stderr: "" });
    expect(Object.keys(cellsOf(at("two"))).length).toBeGreaterThan(2);
    expect(cellsOf(at("two"))).toEqual(cellsOf(at("one")));
    expect(readFileSync(join(at("two"), "report.json"))).toEqual(readFileSync(join(at("one"), "report.json")));
  });

  test.skipIf(process.platform === "win32")("Ctrl-C ends every thread and leaves no half-written cell", async () => {
    const output = at("stopped");
    const child = rarefy(run(output, "--scale", "laptop", "--threads", "2"), {
      interrupt: { signal: "SIGINT", when: /\d steps"/ },
    });
    const { code, stderr } = await child;
    expect(code).toBe(130);
    expect(stderr).toMatch(/"total":105/);
    expect(existsSync(join(output, "report.json"))).toBe(false);
    for (const text of Object.values(cellsOf(output))) expect(JSON.parse(text)).toHaveProperty("result.test");
  });

  test("an error in a thread is the command's", async () => {
    const { code, stderr } = await rarefy([
      ...["experiment", "run", "text-classification", "--scale", "smoke", "--threads", "2", "--quiet"],
      ...["--texts", at("nowhere"), "-o", at("texts")],
    ]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/nowhere/);
    expect(stderr).not.toMatch(/at .*\.js/);
  });

  test("threads and a GPU exclude each other", async () => {
    const { code, stderr } = await rarefy(run(at("gpu"), "--threads", "2", "--device", "webgpu"));
    expect(stderr).toMatch(/--threads share the CPU/);
    expect(code).toBe(2);
  });
});
