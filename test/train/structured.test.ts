import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { readJsonFile } from "../../src/io/index.js";
import { directoryFiles, directorySinks } from "../../src/io/index.node.js";
import type { CellOptions } from "../../src/train/experiments/contract.js";
import type { StructuredResult } from "../../src/train/experiments/structured/oneShot.js";
import { experiment } from "../../src/train/experiments/structured.js";
import { decoderObjective, initialWeights, modelParameters, type State, writeWeights } from "../../src/train/index.js";
import { randomFor } from "../../src/train/internal.js";
import { fillingName, fillingOf } from "../../src/train/trace/filling.js";
import { smallClassifier } from "./smallModel.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-structured-"));
const directory = join(scratch, "model");
const specOf = async () => readModelSpec(await readJsonFile(directoryFiles(directory), "config.json"), "config.json");
beforeAll(async () => {
  smallClassifier(directory, ["a", "b"]);
  const parameters = modelParameters(await specOf());
  const weights = initialWeights(parameters, randomFor(0, "weights"), 0.3);
  await writeWeights(directorySinks(directory), parameters, weights, () => "F32");
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const texts: Record<string, string> = {
  "subj.train.tsv": `label\ttext\n${"a\tgood film here\nb\tthe law is old\n".repeat(30)}`,
  "subj.test.tsv": `label\ttext\n${"a\tgood old film\nb\tthe law\n".repeat(10)}`,
};

const run = (name: string, options: Partial<CellOptions> = {}) => {
  const cell = experiment.plan("smoke", 1, "small").find(({ settings }) => settings.name === name)!;
  return experiment.run(cell, {
    device: "wasm",
    readText: async (name) => texts[name],
    openModel: async () => directoryFiles(directory),
    state: { load: async () => undefined, save: async () => {} },
    ...options,
  }) as Promise<StructuredResult>;
};

test("a classifier loses units within the budget by every method, and its accuracy is told", async () => {
  const names = experiment.plan("smoke", 1, "small").map(({ settings }) => settings.name as string);
  for (const name of names) {
    const { kind, points, tokens } = await run(name);
    expect(kind).toBe("classifier");
    expect(tokens).toBeGreaterThan(2);
    expect(points.length).toBe(name === "one-shot" ? 5 : 1);
    for (const { name: contestant, macsShare, quality, heads, neurons } of points) {
      expect(quality).toBeGreaterThanOrEqual(0);
      expect(quality).toBeLessThanOrEqual(100);
      if (contestant === "dense") expect([macsShare, heads, neurons]).toEqual([1, [2, 2], [32, 32]]);
      else expect(macsShare).toBeLessThanOrEqual(0.5);
    }
  }
});

test("a cell that is stopped goes on from its state to the same result", async () => {
  for (const name of ["one-shot", "masked"]) {
    const whole = await run(name);
    let stored: State | undefined;
    const stop = new AbortController();
    let saves = 0;
    const state = {
      load: async () => stored,
      async save(_step: number, state: State) {
        // The arrays are the run's own.
        stored = structuredClone(state);
        if (++saves === 3) stop.abort(new Error("stop"));
      },
    };
    const onProgress: CellOptions["onProgress"] = ({ stage }) => {
      if (stage === "train") stop.abort(new Error("stop"));
    };
    await expect(run(name, { state, signal: stop.signal, onProgress })).rejects.toThrow("stop");
    expect(stored).toBeDefined();
    expect(await run(name, { state })).toEqual(whole);
  }
});

test("what fills a text up is not read by a classifier that is trained", async () => {
  const spec = await specOf();
  const parameters = modelParameters(spec);
  const weights = initialWeights(parameters, randomFor(1, "weights"), 0.3);
  using objective = await decoderObjective(spec, parameters, 6, "wasm", { classifies: true });
  const batch = {
    tokens: { shape: [12], values: Int32Array.from([5, 9, 7, 3, 2, 8, 4, 6, 1, 0, 0, 0]) },
    label: { shape: [2], values: Int32Array.of(0, 1) },
    [fillingName]: fillingOf(Uint32Array.of(6, 3), 6),
  };
  const before = await objective.predict(weights, batch);
  batch.tokens.values.set([11, 12, 13], 9);
  const after = await objective.predict(weights, batch);
  for (let i = 0; i < 4; i++) expect(after[i]).toBeCloseTo(before[i], 6);
  // The last token of the text is.
  batch.tokens.values[8] = 2;
  const other = await objective.predict(weights, batch);
  expect(Math.abs(other[2] - before[2])).toBeGreaterThan(1e-3);
});
