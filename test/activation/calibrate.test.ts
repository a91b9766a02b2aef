import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blockOutputError, blockSparsity } from "../../src/compress/index.js";
import { type ProgressEvent, Random } from "../../src/core/index.js";
import { calibrateBetterAllocation, evaluateQuality } from "../../src/eval/index.js";
import { type ActivationSparsity, parseArtifact, serializeArtifact } from "../../src/io/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { BlockProbe, probeRows } from "../../src/pipeline/blockProbe.js";
import { type CalibrationOptions, calibrateActivationSparsity, toThresholds } from "../../src/pipeline/index.js";
import type { TokenizedText } from "../../src/text/index.js";
import { load, logitsOf, path } from "../golden/golden.js";
import { byRole, roles, siteOf, sites } from "../support/gatedBlock.js";

const window = 32;
const windows = 4;

let backend: Backend;
let model: Model;
let text: TokenizedText;
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/llama"), backend, "f32");
  const random = new Random(7);
  text = { tokens: Uint32Array.from({ length: 150 }, () => random.integer(512)), sha256: "0".repeat(64) };
});
afterAll(() => backend[Symbol.dispose]());

const calibrate = (options: Partial<CalibrationOptions> = {}) =>
  calibrateActivationSparsity(model, text, { sparsities: [0.5], window, calibrationWindows: windows, ...options });

/** |x| of every site of every layer over the calibration windows, sorted, from whole forward passes. */
async function sortedMagnitudes(): Promise<Map<string, Float32Array>> {
  const seen = new Map<string, number[]>();
  using cache = model.createCache(window);
  for (let w = 0; w < windows; w++) {
    await model.forward(text.tokens.subarray(w * window, (w + 1) * window), cache, 0, {
      logits: "none",
      tap: {
        sites: Object.keys(sites),
        async onActivation(layer, site, activation) {
          const values = seen.get(`${layer} ${site}`) ?? [];
          for (const value of await backend.read(activation)) values.push(Math.abs(value));
          seen.set(`${layer} ${site}`, values);
        },
      },
    });
  }
  return new Map(Array.from(seen, ([key, values]) => [key, Float32Array.from(values).sort()]));
}

/** Weights of the maps relative to hiddenSize²: hidden size 64, 4 heads of 16 over 2 of keys, 160 neurons. */
const costs: Record<string, number> = {
  q_proj: 1,
  k_proj: 0.5,
  v_proj: 0.5,
  o_proj: 1,
  gate_proj: 2.5,
  up_proj: 2.5,
  down_proj: 2.5,
};
const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
const shareAtOrBelow = (sorted: Float32Array, threshold: number) =>
  sorted.filter((magnitude) => magnitude <= threshold).length / sorted.length;

describe("TEAL, uniform", () => {
  test("thresholds are the quantiles of |x| and realise p on the calibration text within 1 %", async () => {
    const sparsities = [0.25, 0.5, 0.9];
    const { records, realisedSparsities } = await calibrate({ sparsities });
    const magnitudes = await sortedMagnitudes();
    for (const [level, p] of sparsities.entries()) {
      expect(records[level].sparsity).toBe(p);
      expect(records[level].layers).toHaveLength(2);
      expect(Math.abs(realisedSparsities[level] - p)).toBeLessThan(0.001);
      for (const [layer, record] of records[level].layers.entries()) {
        expect(Object.keys(record.maps)).toEqual(roles);
        for (const role of roles) {
          const sorted = magnitudes.get(`${layer} ${siteOf(role)}`)!;
          const { threshold, sparsity } = record.maps[role];
          expect(Math.abs(threshold / sorted[Math.floor(p * sorted.length)] - 1)).toBeLessThan(0.005);
          expect(Math.abs(shareAtOrBelow(sorted, threshold) - p)).toBeLessThan(0.01 * p);
          expect(Math.abs(sparsity - p)).toBeLessThan(0.001);
        }
      }
    }
  });

  test("the record survives rarefy.json and becomes the model's thresholds", async () => {
    const { records } = await calibrate({ sparsities: [0.4], prefill: { denseFirst: 4 }, seed: 3 });
    const bytes = serializeArtifact({ rarefy: 2, activationSparsity: records[0] });
    const read = parseArtifact(JSON.parse(new TextDecoder().decode(bytes)), "rarefy.json").activationSparsity!;
    expect(read).toEqual(records[0]);
    expect(read.prefill).toEqual({ denseFirst: 4 });
    expect(read.calibration).toEqual({ textSha256: text.sha256, windows, window, seed: 3 });
    const thresholds = toThresholds(read);
    expect(thresholds.gate).toBeUndefined();
    expect(thresholds.maps[1].down_proj).toBe(records[0].layers[1].maps.down_proj.threshold);
  });

  test("sparsity 0 gives thresholds of exactly 0, and the dense model bit for bit", async () => {
    const { records } = await calibrate({ sparsities: [0] });
    const zeros = toThresholds(records[0]);
    expect(zeros.maps).toEqual([byRole(() => 0), byRole(() => 0)]);
    const tokens = text.tokens.subarray(0, 20);
    const dense = await logitsOf(model, tokens, 1);
    const sparse = await logitsOf(model, tokens, 1, { thresholds: zeros });
    expect(sparse).toEqual(dense);
  });

  test("more sparsity never reads more bytes, and the counters say what was asked", async () => {
    const sparsities = [0, 0.25, 0.5, 0.75, 0.9];
    const { records } = await calibrate({ sparsities });
    const tokens = text.tokens.subarray(0, windows * window);
    const counted: { sparsity: number; bytes: number; skipped: number }[] = [];
    for (const record of records) {
      const thresholds = toThresholds(record);
      backend.takeCounters();
      for (let w = 0; w < windows; w++) {
        await logitsOf(model, tokens.subarray(w * window, (w + 1) * window), 1, { thresholds });
      }
      const { weightBytesRead, inputs, inputsSkipped } = backend.takeCounters();
      counted.push({ sparsity: record.sparsity, bytes: weightBytesRead, skipped: inputsSkipped / inputs });
    }
    for (const [i, { sparsity, bytes, skipped }] of counted.entries()) {
      if (i === 0) continue;
      expect(bytes).toBeLessThan(counted[i - 1].bytes);
      // Sparse inputs change later activations, so what decoding skips is near p and not p.
      expect(Math.abs(skipped - sparsity)).toBeLessThan(0.08);
    }
  });
});

describe("TEAL, greedy", () => {
  const greedy = (options: Partial<CalibrationOptions> = {}) =>
    calibrate({ allocation: "greedy", greedyBase: 0.2, greedyTokens: 64, sparsities: [0.3, 0.5], ...options });

  test("rows keep the books, and records are the rows nearest the levels", async () => {
    const { records, allocationRows, realisedSparsities } = await greedy();
    const move = 0.2 / sum(Object.values(costs));
    expect(allocationRows).toHaveLength(2);
    for (const [layer, rows] of allocationRows.entries()) {
      expect(rows[0]).toMatchObject({ sparsity: 0, error: 0 });
      expect(rows.at(-1)!.sparsity).toBeGreaterThanOrEqual(0.5);
      expect(rows.at(-2)!.sparsity).toBeLessThan(0.5);
      for (const [i, row] of rows.entries()) {
        expect(row.sparsity).toBe(blockSparsity(costs, row.shares));
        if (i === 0) continue;
        const [raised, ...others] = roles.filter((p) => row.shares[p] !== rows[i - 1].shares[p]);
        expect(others).toEqual([]);
        const rise = row.sparsity - rows[i - 1].sparsity;
        if (row.shares[raised] < 1) expect(rise).toBeCloseTo(move, 10);
        else expect(rise).toBeLessThanOrEqual(move + 1e-10);
      }
      for (const [level, record] of records.entries()) {
        const nearest = rows.toSorted(
          (a, b) => Math.abs(a.sparsity - record.sparsity) - Math.abs(b.sparsity - record.sparsity),
        )[0];
        for (const name of roles) {
          const realised = record.layers[layer].maps[name].sparsity;
          expect(Math.abs(realised - nearest.shares[name])).toBeLessThan(0.001);
        }
        expect(Math.abs(realisedSparsities[level] - record.sparsity)).toBeLessThan(move / 2 + 0.001);
      }
    }
  });

  test("leaves the dense pass alone: what is counted does not depend on the allocation", async () => {
    expect((await greedy({ sparsities: [0.3], greedyTokens: window })).sites).toEqual((await calibrate()).sites);
  });

  test("beats uniform on the blocks' error, on the windows it was judged on", async () => {
    const { records } = await greedy({ greedyBase: 0.4, greedyTokens: windows * window });
    const { records: uniform } = await calibrate();
    for (let layer = 0; layer < 2; layer++) {
      using probe = await BlockProbe.create(model, layer, await blockInputs(layer), probeRows(window, "dense"));
      const error = (record: ActivationSparsity) => probe.error(toThresholds(record).maps[layer]);
      expect(await error(records[1])).toBeLessThan(await error(uniform[0]));
    }
  });

  test("the same seed gives the same records, another seed other windows", async () => {
    const rowsOf = async (seed: number) =>
      (await greedy({ seed, sparsities: [0.2], greedyTokens: window })).allocationRows;
    const once = await rowsOf(5);
    expect(await rowsOf(5)).toEqual(once);
    expect(await rowsOf(6)).not.toEqual(once);
  });
});

/** What enters a block in each window, from whole dense passes. */
async function blockInputs(layer: number): Promise<Float32Array[]> {
  const inputs: Float32Array[] = [];
  using cache = model.createCache(window);
  for (let w = 0; w < windows; w++) {
    const x = model.embed(text.tokens.subarray(w * window, (w + 1) * window));
    for (let before = 0; before < layer; before++) await model.block(before, x, cache, 0);
    inputs.push(await backend.read(x));
    backend.release(x);
  }
  return inputs;
}

describe("BlockProbe", () => {
  test.each([
    { prefill: "dense", dense: window / 2, judged: window / 4 },
    { prefill: { denseFirst: 0 }, dense: 0, judged: window },
    { prefill: { denseFirst: 8 }, dense: 8, judged: window - 8 },
  ] as const)("judges the block as a whole pass would be: $prefill", async ({ prefill, dense, judged }) => {
    expect(probeRows(window, prefill)).toEqual({ tokens: window, dense, judged });
    const inputs = await blockInputs(1);
    const thresholds = toThresholds((await calibrate()).records[0]);
    let expected = 0;
    for (const input of inputs) {
      const run = async (sparse: boolean) => {
        using cache = model.createCache(window);
        const x = backend.allocate(window, 64);
        backend.write(x, input);
        await model.block(1, x, cache, 0, { sparseFrom: dense, thresholds: sparse ? thresholds : "dense" });
        const values = await backend.read(x);
        backend.release(x);
        return values.subarray((window - judged) * 64);
      };
      expected += blockOutputError(await run(true), await run(false), 64) / inputs.length;
    }
    using probe = await BlockProbe.create(model, 1, inputs, probeRows(window, prefill));
    expect(await probe.error(thresholds.maps[1])).toBeCloseTo(expected, 5);
    expect(await probe.error(byRole(() => 0))).toBe(0);
  });
});

describe("the better of both allocations", () => {
  test("is the one with less perplexity on the calibration text, for each sparsity", async () => {
    const sparsities = [0.3, 0.5, 0.7];
    const settings = { sparsities, window, calibrationWindows: windows, greedyBase: 0.2, greedyTokens: window };
    const { records, realisedSparsities, comparisons } = await calibrateBetterAllocation(model, text, settings);
    const uniform = await calibrateActivationSparsity(model, text, { ...settings, allocation: "uniform" });
    const greedy = await calibrateActivationSparsity(model, text, { ...settings, allocation: "greedy" });
    for (const [i, { sparsity, kept, perplexity }] of comparisons.entries()) {
      const variants = [greedy, uniform].map(({ records }, v) => ({
        name: `${v}`,
        model,
        thresholds: toThresholds(records[i]),
      }));
      const qualities = await evaluateQuality(variants, text, { window, maxWindows: windows });
      expect(sparsity).toBe(sparsities[i]);
      expect([perplexity.greedy, perplexity.uniform]).toEqual(qualities.map((q) => q.perplexity));
      expect(kept).toBe(perplexity.uniform < perplexity.greedy ? "uniform" : "greedy");
      const expected = kept === "greedy" ? greedy : uniform;
      expect(records[i]).toEqual(expected.records[i]);
      expect(realisedSparsities[i]).toBe(expected.realisedSparsities[i]);
    }
  });
});

describe("CATS", () => {
  test("thresholds |f(gate)|, so that half of the MLP's hidden values are zero and nothing else is", async () => {
    const { records, realisedSparsities } = await calibrate({ method: "cats" });
    const thresholds = toThresholds(records[0]);
    expect(thresholds.gate).toHaveLength(2);
    expect(realisedSparsities[0]).toBeCloseTo((0.5 * costs.down_proj) / sum(Object.values(costs)), 3);
    expect(records[0].layers[0].gate!.sparsity).toBeCloseTo(0.5, 3);

    backend.takeCounters();
    await logitsOf(model, text.tokens.subarray(0, window), 1, { thresholds });
    const { inputs, inputsSkipped } = backend.takeCounters();
    // Only `down_proj` runs sparse.
    expect(inputs).toBe(2 * 160 * window);
    expect(Math.abs(inputsSkipped / inputs - 0.5)).toBeLessThan(0.05);
  });

  test("has nothing to allocate", async () => {
    await expect(calibrate({ method: "cats", allocation: "greedy" })).rejects.toThrow("nothing to allocate");
  });
});

test("progress counts up to its total, whatever is calibrated", async () => {
  for (const options of [
    {},
    { allocation: "greedy", greedyBase: 0.5, greedyTokens: window },
    { method: "cats" },
  ] as const) {
    const events: ProgressEvent[] = [];
    await calibrate({ ...options, onProgress: (event) => events.push(event) });
    expect(events.at(-1)).toMatchObject({ stage: "calibrate", unit: "tokens", detail: "layer 2 of 2", etaMs: 0 });
    expect(events.at(-1)!.done).toBe(events.at(-1)!.total);
  }
});

test("counts the dense model, whatever it was loaded with", async () => {
  const { records, sites } = await calibrate();
  using sparse = await load(path("arch/llama"), backend, "f32", toThresholds(records[0]));
  const again = await calibrateActivationSparsity(sparse, text, {
    sparsities: [0.5],
    window,
    calibrationWindows: windows,
  });
  expect(again.records).toEqual(records);
  expect(again.sites).toEqual(sites);
});

test("aborts between blocks", async () => {
  const controller = new AbortController();
  const onProgress = () => controller.abort();
  await expect(calibrate({ onProgress, signal: controller.signal })).rejects.toThrow(/abort/i);
});

test.each([
  [{ sparsities: [1] }, "sparsity 1"],
  [{ sparsities: [Number.NaN] }, "sparsity NaN"],
  [{ window: 200 }, "the calibration text has 150 tokens, and 4 windows of 200"],
  [{ calibrationWindows: 0 }, "0 windows"],
  [{ calibrationWindows: 2.5 }, "2.5 windows"],
  [{ greedyBase: 0 }, "greedy base 0"],
  [{ greedyTokens: 3 }, "3 greedy tokens"],
  [{ window: 3 }, "a window has at least 4 tokens"],
])("refuses %j", async (options, message) => {
  await expect(calibrate(options)).rejects.toThrow(message);
});
