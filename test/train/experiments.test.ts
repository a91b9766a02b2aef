import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { type ProgressEvent, Random } from "../../src/core/index.js";
import { readJsonFile } from "../../src/io/index.js";
import { directoryFiles, directorySinks, readText } from "../../src/io/index.node.js";
import { svgFile } from "../../src/report/internal.js";
import { batchOfStep } from "../../src/train/data/rows.js";
import { sincData } from "../../src/train/data/sinc.js";
import { spiralsData } from "../../src/train/data/spirals.js";
import { TokenWindows } from "../../src/train/data/tokens.js";
import { languageModels } from "../../src/train/experiments/distillationContestants.js";
import { teachLanguageModel } from "../../src/train/experiments/distillationLanguage.js";
import {
  type Cell,
  type CellOutcome,
  experiments,
  initialWeights,
  modelParameters,
  runExperiment,
  type State,
  scales,
  trainMethods,
  writeWeights,
} from "../../src/train/index.js";
import { htmlPage, markdownPage, randomFor } from "../../src/train/internal.js";
import { pruneSurvivors, randomMasks } from "../../src/train/methods/lottery.js";
import { smallConfig } from "./smallModel.js";

test.each([
  ...Object.keys(experiments).map((id) => ["docs/experiments.md", id]),
  ...Object.keys(trainMethods).map((id) => ["docs/training.md", id]),
])("%s tells of %s", async (page, id) => {
  expect(await readText(page)).toContain(`\`${id}\``);
});

/** Kept in memory, with a note of what was run. */
function memoryStore() {
  const cells = new Map<string, CellOutcome>();
  return {
    saved: [] as string[],
    cells,
    async load(cell: Cell) {
      return cells.get(cell.key);
    },
    async save(cell: Cell, outcome: CellOutcome) {
      this.saved.push(cell.key);
      // As through a file.
      cells.set(cell.key, JSON.parse(JSON.stringify(outcome)));
    },
    stateOf: () => ({ load: async () => undefined, save: async () => {} }),
  };
}

const texts: Record<string, string> = {
  "subj.train.tsv": `label\ttext\n${"a\tgood film here\nb\tthe law is old\n".repeat(60)}`,
  "subj.test.tsv": `label\ttext\n${"a\tgood old film\nb\tthe law\n".repeat(10)}`,
};
/** What is not in the repository is stood in for by another text. */
const standIns: Record<string, string> = { "train-books.txt.xz": "books-eval.txt" };
const text = async (name: string) =>
  texts[name] ?? (await readText(`models/text/${standIns[name] ?? name}`)).slice(0, 6000);

/** Untrained, two narrow layers, of which one can be left out. */
const scratch = mkdtempSync(join(tmpdir(), "rarefy-experiments-"));
const modelDirectory = join(scratch, "model");
const openModel = async () => directoryFiles(modelDirectory);
beforeAll(async () => {
  smallConfig(modelDirectory, { num_hidden_layers: 2 });
  const files = directoryFiles(modelDirectory);
  const spec = readModelSpec(await readJsonFile(files, "config.json"), "config.json");
  const parameters = modelParameters(spec);
  const weights = initialWeights(parameters, randomFor(0, "weights"));
  await writeWeights(directorySinks(modelDirectory), parameters, weights, () => "F32");
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

describe.each(Object.keys(experiments))("%s", (id) => {
  test("runs at smoke scale, reports the same from the store, and stops between runs", async () => {
    const { experiment } = await experiments[id]();
    expect(experiment.id).toBe(id);
    const store = memoryStore();
    const options = { scale: "smoke", readText: text, openModel, device: "wasm", store } as const;
    const { cells, report } = await runExperiment(experiment, options);
    expect(store.saved).toEqual(cells.map(({ key }) => key));
    for (const { rows, columns } of report.tables) {
      expect(rows.length).toBeGreaterThan(0);
      for (const row of rows) {
        expect(row).toHaveLength(columns.length);
        expect(row.join()).not.toMatch(/NaN|undefined|Infinity/);
      }
    }
    for (const { picture } of report.figures) expect(svgFile(picture)).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
    expect(markdownPage(experiment, "smoke", report)).toContain(report.tables[0].title);
    expect(htmlPage(experiment, "smoke", report)).toContain("</html>");

    const again = await runExperiment(experiment, options);
    expect(store.saved).toHaveLength(cells.length);
    expect(again.report).toEqual(report);
    await expect(
      runExperiment(experiment, { ...options, signal: AbortSignal.abort(new Error("stop")) }),
    ).rejects.toThrow("stop");
  });

  test("every scale has a plan of its own keys, the same each time", async () => {
    const { experiment } = await experiments[id]();
    for (const scale of scales) {
      const plan = experiment.plan(scale, 2, "model");
      expect(new Set(plan.map(({ key }) => key)).size).toBe(plan.length);
      expect(experiment.plan(scale, 2, "model")).toEqual(plan);
      for (const { key } of plan) expect(key).toMatch(/^[a-z0-9-]+$/);
    }
  });
});

describe("a language model that learns beside a teacher", () => {
  const protocol = {
    student: { layers: 1, hiddenSize: 16, intermediateSize: 32, heads: 2, kvHeads: 1 },
    ...{ steps: 6, rate: 1e-2, batchSize: 1, window: 16, testWindows: 4 },
  };
  /** @param stops whether the run is stopped where it first tells of a step: later ones are told of only every 100 ms */
  const teach = (name: string, stored: { state?: State }, stops = false) => {
    const controller = new AbortController();
    const cell = { key: "one", seed: 1, settings: { name } };
    const state = {
      load: async () => stored.state,
      save: async (_: number, state: State) => {
        stored.state = structuredClone(state);
      },
    };
    const onProgress = ({ stage }: ProgressEvent) => stage === "train" && stops && controller.abort();
    return teachLanguageModel(cell, protocol, {
      ...{ device: "wasm", readText: text, openModel, state, onProgress, signal: controller.signal },
    });
  };

  test("each way has its own perplexity; the teacher is judged as it is", async () => {
    const perplexities: number[] = [];
    for (const name of ["teacher", ...Object.keys(languageModels)]) {
      const { perplexity, tokens } = await teach(name, {});
      expect(tokens).toBe(name === "teacher" ? 0 : 6 * 16);
      expect(perplexity).toBeGreaterThan(1000);
      perplexities.push(perplexity);
    }
    expect(new Set(perplexities).size).toBe(perplexities.length);
  });

  test("stopped and asked for again, it is the run that was not stopped", async () => {
    const whole = await teach("kd-hidden", {});
    const stored: { state?: State } = {};
    await expect(teach("kd-hidden", stored, true)).rejects.toThrow(/abort/i);
    expect(stored.state!.step).toBeGreaterThan(0);
    expect(stored.state!.step).toBeLessThan(6);
    expect((await teach("kd-hidden", stored)).perplexity).toBe(whole.perplexity);
  });
});

describe("data", () => {
  test("Sinc's noise has the variance it was asked for", () => {
    const { input, target } = sincData(new Random(1), 20_000, 0.005);
    let sum = 0;
    for (const [i, x] of input.values.entries()) sum += (target.values[i] - Math.sin(x) / x) ** 2;
    expect(sum / 20_000).toBeCloseTo(0.005, 3);
    expect(Math.max(...input.values.map(Math.abs))).toBeLessThanOrEqual(10);
  });

  test("spirals: both classes, a fifth for testing, radius and angle of a turn", () => {
    const { train, test } = spiralsData(new Random(2), 500, 0);
    expect([train.label.values.length, test.label.values.length]).toEqual([800, 200]);
    const all = [...train.label.values, ...test.label.values];
    expect(all.filter((c) => c === 1)).toHaveLength(500);
    for (const [i, c] of train.label.values.entries()) {
      const [x, y] = train.input.values.subarray(2 * i, 2 * i + 2);
      const n = Math.hypot(x, y);
      const angle = 2 * Math.PI * n + (c === 1 ? Math.PI : 0);
      expect(x).toBeCloseTo(n * Math.sin(angle), 4);
      expect(y).toBeCloseTo(n * Math.cos(angle), 4);
    }
  });

  test("an epoch of batches has every row at most once, another epoch another order", () => {
    const values = Float32Array.from({ length: 10 }, (_, i) => i);
    const data = { x: { shape: [10], values } };
    const epoch = (first: number) => [0, 1, 2].flatMap((k) => [...batchOfStep(data, 3, 5, first + k).x.values]);
    expect(new Set(epoch(0)).size).toBe(9);
    expect(epoch(3)).not.toEqual(epoch(0));
    expect(epoch(0)).toEqual(epoch(0));
  });

  test("token windows: labels are the tokens that follow; an epoch sees each window once", () => {
    const windows = new TokenWindows(
      Uint32Array.from({ length: 41 }, (_, i) => i),
      4,
      2,
      3,
    );
    expect(windows.count).toBe(10);
    const starts: number[] = [];
    for (let step = 0; step < 5; step++) {
      const { tokens, label } = windows.batch(step);
      expect([...label.values]).toEqual([...tokens.values].map((t) => t + 1));
      starts.push(tokens.values[0], tokens.values[4]);
    }
    expect(starts.sort((a, b) => a - b)).toEqual([0, 4, 8, 12, 16, 20, 24, 28, 32, 36]);
    expect([...windows.inOrder(3)]).toHaveLength(1);
    expect(() => new TokenWindows(new Uint32Array(5), 4, 2, 0)).toThrow(/Give more text/);
  });
});

describe("lottery tickets", () => {
  const parameters = ["first", "last"].map((name) => ({ name, shape: [2, 10], layer: name, role: "outer" as const }));

  test("a round drops a fifth of the survivors, the smallest, and a tenth of the last layer's", () => {
    const random = new Random(4);
    const masks = new Map(parameters.map(({ name }) => [name, new Uint8Array(20).fill(1)]));
    const weights = new Map(
      parameters.map(({ name }) => [name, Float32Array.from({ length: 20 }, () => random.normal())]),
    );
    pruneSurvivors(masks, weights, parameters, 0.2);
    const ones = () => [...masks.values()].map((mask) => mask.reduce((a, b) => a + b));
    expect(ones()).toEqual([16, 18]);
    const w = weights.get("first")!;
    const largestGone = Math.max(...w.filter((_, i) => masks.get("first")![i] === 0).map(Math.abs));
    expect(largestGone).toBeLessThan(Math.min(...w.filter((_, i) => masks.get("first")![i] === 1).map(Math.abs)));
    for (const [name, mask] of masks) for (const [i, keep] of mask.entries()) if (!keep) weights.get(name)![i] = 0;
    const before = masks.get("first")!.slice();
    pruneSurvivors(masks, weights, parameters, 0.2);
    expect(ones()).toEqual([13, 16]);
    for (const [i, keep] of masks.get("first")!.entries()) expect(keep).toBeLessThanOrEqual(before[i]);
    const shuffled = randomMasks(masks, random);
    expect([...shuffled.values()].map((mask) => mask.reduce((a, b) => a + b))).toEqual(ones());
    expect(shuffled.get("first")).not.toEqual(masks.get("first"));
  });
});
