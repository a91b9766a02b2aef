import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { directoryFiles } from "../../src/io/index.node.js";
import { touched } from "../../src/jobs/experiments/storedModel.js";
import { experiments, runExperimentCells } from "../../src/jobs/index.js";
import { svgFile } from "../../src/report/internal.js";
import type { FinishedCell } from "../../src/train/index.js";
import { htmlPage } from "../../src/train/internal.js";

const model = "models/tiny-6m";
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "five-"));
  const text = await readFile("models/text/books-eval.txt", "utf8");
  for (const name of ["train-books.txt.xz", "calib.txt", "books-eval.txt"]) {
    await writeFile(join(folder, name.replace(".xz", "")), text.slice(0, 20_000));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const load = async () => (await experiments["five-schemes"]()).experiment;

describe("five schemes", () => {
  test("cells are all strengths and every two together, and are measured at the smallest scale", async () => {
    const experiment = await load();
    const keys = experiment.plan("smoke", 1, "m").map(({ key }) => key);
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys).toHaveLength(1 + 10 + 10);
    const texts = new Map([["train-books.txt.xz", "train-books.txt"]]);
    const chosen = ["low-rank-half-seed0", "quantisation-4-bits-seed0", "sharing-low-rank-seed0"];
    const cells = await Promise.all(
      chosen.map(async (key) => {
        const cell = experiment.plan("smoke", 1, "m").find((one) => one.key === key)!;
        const result = await experiment.run(cell, {
          device: "wasm",
          readText: (name) => readFile(join(folder, texts.get(name) ?? name), "utf8"),
          openModel: async () => directoryFiles(model),
          state: { load: async () => undefined, save: async () => {} },
        });
        return { ...cell, result };
      }),
    );
    const [lowRank, quantised, refused] = cells.map(({ result }) => result as Record<string, number>);
    // What stays of 6.0 million numbers in bf16 when those of the blocks are halved, or go to 4 bits with a scale for 32.
    expect(lowRank.denseBytes / lowRank.bytes).toBeGreaterThan(1.3);
    expect(lowRank.trained).not.toBe(lowRank.oneShot);
    // What became pairs; the embedding and the norms are as they were.
    expect(lowRank).toMatchObject({ changed: 0, zeroed: 0 });
    expect(lowRank.gone).toBeGreaterThan(0.5);
    expect(quantised.changed).toBeGreaterThan(0.5);
    expect(quantised).toMatchObject({ trained: null });
    expect(quantised.denseBytes / quantised.bytes).toBeGreaterThan(1.7);
    expect(quantised.megabytesPerToken).toBeLessThan(lowRank.megabytesPerToken);
    for (const { speedUp, oneShot } of [lowRank, quantised]) {
      expect(speedUp).toBeGreaterThan(0);
      expect(oneShot).toBeGreaterThan(20);
    }
    expect(refused).toEqual({ refused: expect.stringMatching(/share their weights/) });
  });

  test("a missing text is an error and no result", async () => {
    const options = { scale: "smoke", texts: folder, model, device: "wasm" } as const;
    const run = runExperimentCells("five-schemes", join(folder, "out"), ["sharing-pairs-seed0"], options);
    await expect(run).rejects.toThrow(/train-books/);
  });

  test("its report has every cell in its tables, what was refused with the reason, and figures", async () => {
    const experiment = await load();
    const cells = experiment.plan("laptop", 1, "m").map((cell, i): FinishedCell => {
      const refused = cell.settings.scheme === "sharing + low rank";
      const training = !String(cell.settings.scheme).startsWith("quantisation") && cell.settings.scheme !== "dense";
      const result = refused
        ? { refused: "they share" }
        : {
            ...{ oneShot: 10 + i, trained: training ? 10 + i / 4 : null, bytes: 1e6 / (1 + i / 10), denseBytes: 1e6 },
            ...{ speedUp: 1 + i / 20, megabytesPerToken: 1, changed: 0.5, zeroed: 0.25, gone: 0 },
          };
      return { ...cell, result, device: "wasm" };
    });
    const report = await experiment.report(cells, "laptop");
    const [summary, levels, pairs] = report.tables;
    expect(summary.rows.map(([name]) => name)).toEqual([
      "quantisation",
      "sparsification",
      "distillation",
      "sharing",
      "low rank",
    ]);
    const row = (name: string) => summary.rows.find(([first]) => first === name)!;
    // 11 and 12 are within 1.5 times 10, untrained; 17 and 18 are beyond, and 12 when trained within.
    expect(row("quantisation").slice(1, 3)).toEqual(["1.20 × (4 bits)", "no"]);
    expect(row("sharing").slice(1, 3)).toEqual(["1.80 × (threes)", "yes"]);
    expect(row("low rank").at(-1)).toBe("3 of 4");
    expect(levels.rows).toHaveLength(11);
    expect(pairs.rows.at(-1)!.at(-1)).toBe("refused: they share");
    for (const table of report.tables) {
      for (const cellsOfRow of table.rows) expect(cellsOfRow).toHaveLength(table.columns.length);
    }
    for (const { picture } of report.figures) expect(svgFile(picture)).toMatch(/^<svg /);
    expect(htmlPage(experiment, "laptop", report)).toContain("Two together");
  });

  test("what is touched: changed, put to 0, gone", async () => {
    const same = directoryFiles(model);
    expect(await touched(same, same, {})).toEqual({ changed: 0, zeroed: 0, gone: 0 });
  });
});
