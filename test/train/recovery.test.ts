import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { readJsonFile } from "../../src/io/index.js";
import { directoryFiles, directorySinks, readText } from "../../src/io/index.node.js";
import type { CellOptions } from "../../src/train/experiments/contract.js";
import { experiment } from "../../src/train/experiments/recovery.js";
import type { RecoveryResult } from "../../src/train/experiments/recoveryReport.js";
import { initialWeights, modelParameters, type State, writeWeights } from "../../src/train/index.js";
import { randomFor } from "../../src/train/internal.js";
import { smallConfig } from "./smallModel.js";

const scratch = mkdtempSync(join(tmpdir(), "rarefy-recovery-"));
const directory = join(scratch, "model");
beforeAll(async () => {
  smallConfig(directory);
  const files = directoryFiles(directory);
  const spec = readModelSpec(await readJsonFile(files, "config.json"), "config.json");
  const parameters = modelParameters(spec);
  const weights = initialWeights(parameters, randomFor(0, "weights"));
  await writeWeights(directorySinks(directory), parameters, weights, () => "F32");
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const text = async (name: string) =>
  (await readText(`models/text/${name === "calib.txt" ? name : "books-eval.txt"}`)).slice(0, 6000);

const cellOf = (name: string) => experiment.plan("smoke", 1, "small").find(({ settings }) => settings.name === name)!;

const run = (name: string, options: Partial<CellOptions> = {}) =>
  experiment.run(cellOf(name), {
    device: "wasm",
    readText: text,
    openModel: async () => directoryFiles(directory),
    state: { load: async () => undefined, save: async () => {} },
    ...options,
  }) as Promise<RecoveryResult>;

/** q, k, v, o, gate, up, down of the one block. */
const linear = 32 * 32 + 2 * 16 * 32 + 32 * 32 + 3 * 32 * 64;

test("dense weights break every group of four, one-shot and trained ones none; the counts are of all linear weights", async () => {
  const dense = await run("dense");
  expect(dense.pattern).toEqual({ zeros: 0, weights: linear, groups: linear / 4, broken: linear / 4 });
  expect(dense.curve.map(([tokens]) => tokens)).toEqual([0, 32]);
  for (const name of ["one-shot", "fixed-mask", "cast"]) {
    const { pattern, tokens, perplexity } = await run(name);
    expect(pattern).toEqual({ zeros: linear / 2, weights: linear, groups: linear / 4, broken: 0 });
    expect(tokens).toBe(name === "one-shot" ? 0 : 32);
    // Untrained: about one in 8192.
    expect(perplexity).toBeGreaterThan(5000);
    expect(perplexity).toBeLessThan(12_000);
  }
});

test("a cell that is stopped goes on from its state to the same result", async () => {
  const { tokensPerSecond: _, ...whole } = await run("sr-ste");
  const stop = new AbortController();
  let stored: State | undefined;
  const state = {
    load: async () => stored,
    async save(_step: number, state: State) {
      // The arrays are the run's own.
      stored = structuredClone(state);
    },
  };
  const onProgress: CellOptions["onProgress"] = ({ stage }) => {
    if (stage === "train") stop.abort(new Error("stop"));
  };
  await expect(run("sr-ste", { state, signal: stop.signal, onProgress })).rejects.toThrow("stop");
  expect((stored!.training as State).step).toBe(1);
  const { tokensPerSecond: __, ...continued } = await run("sr-ste", { state });
  expect(continued).toEqual(whole);
});
