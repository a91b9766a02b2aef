import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { activationFunctions, UsageError } from "../../src/core/index.js";
import { type Activation, type Backend, openBackend } from "../../src/kernels/index.js";
import {
  type ActivationThresholds,
  type ForwardOptions,
  loadModel,
  type Model,
  type Projection,
  projections,
  type TapSite,
  tapSites,
} from "../../src/model/index.js";
import { architectureGolden, load, logitsOf, path } from "../golden/golden.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const ids = architectureGolden("qwen3").ids;
let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/qwen3"), backend, "f32");
});
beforeEach(() => {
  model.thresholds = undefined;
});
afterAll(() => backend[Symbol.dispose]());

const record = (value: (name: Projection) => number) =>
  Object.fromEntries(projections.map((name) => [name, value(name)])) as Record<Projection, number>;
/** Different for every projection of every layer. */
const various: ActivationThresholds = {
  projections: [0, 1].map((layer) => record((name) => 0.1 + 0.03 * projections.indexOf(name) + 0.05 * layer)),
};

/** Logits [ids.length][logitCols] of passes over `chunk` tokens. */
async function run(options: ForwardOptions = {}, chunk = ids.length): Promise<Float32Array[]> {
  using cache = model.createCache(ids.length);
  const rows: Float32Array[] = [];
  for (let start = 0; start < ids.length; start += chunk) {
    const logits = (await model.forward(ids.subarray(start, start + chunk), cache, start, {
      ...options,
      logits: "all",
    }))!;
    const values = await backend.read(logits);
    for (let r = 0; r < logits.rows; r++) rows.push(values.slice(r * logits.cols, (r + 1) * logits.cols));
    backend.release(logits);
  }
  return rows;
}

function expectClose(actual: Float32Array[], expected: Float32Array[], within: number): void {
  for (const [position, row] of actual.entries()) {
    const worst = row.reduce((most, v, i) => Math.max(most, Math.abs(v - expected[position][i])), 0);
    expect(worst, `position ${position}`).toBeLessThan(within);
  }
}

/** What taps see in one pass over all ids, by "layer site". */
async function watch(sites: readonly TapSite[], options: ForwardOptions = {}, chunk = ids.length) {
  const seen = new Map<string, Float32Array[]>();
  const onActivation = async (layer: number, site: TapSite, activation: Activation) => {
    const key = `${layer} ${site}`;
    seen.set(key, [...(seen.get(key) ?? []), await backend.read(activation)]);
  };
  await run({ ...options, tap: { sites, onActivation } }, chunk);
  return seen;
}

describe("forward", () => {
  test("logits of all rows, of the last and of none", async () => {
    const all = await logitsOf(model, ids);
    using cache = model.createCache(ids.length);
    const before = backend.memoryBytes();
    const last = (await model.forward(ids, cache, 0))!;
    expect([last.rows, last.cols]).toEqual([1, model.logitCols]);
    expect(await backend.read(last)).toEqual(all.at(-1));
    backend.release(last);
    expect(await model.forward(ids, cache, 0, { logits: "none" })).toBeUndefined();
    expect(backend.memoryBytes()).toBe(before);
  });

  test("is its parts: embed, every block, head", async () => {
    const all = await logitsOf(model, ids);
    using cache = model.createCache(ids.length);
    const x = model.embed(ids);
    for (let layer = 0; layer < model.config.layers; layer++) await model.block(layer, x, cache, 0);
    const logits = model.head(x);
    expect(await backend.read(logits)).toEqual(Float32Array.from(all.flatMap((row) => [...row])));
    backend.release(x);
    backend.release(logits);
  });

  test("decoding allocates nothing but its logits, which are given back", async () => {
    using cache = model.createCache(ids.length);
    const step = async (start: number) => {
      const logits = (await model.forward(ids.subarray(start, start + 1), cache, start))!;
      backend.release(logits);
      return backend.memoryBytes();
    };
    const first = await step(0);
    for (let start = 1; start < ids.length; start++) expect(await step(start)).toBe(first);
  });

  test("passes of several sequences started together do not mix", async () => {
    const alone = await logitsOf(model, ids);
    const reversed = ids.slice().reverse();
    const aloneReversed = await logitsOf(model, reversed);
    const together = await Promise.all([logitsOf(model, ids), logitsOf(model, reversed, 5), logitsOf(model, ids, 7)]);
    expect(together[0]).toEqual(alone);
    expect(together[1]).toEqual(aloneReversed);
    expect(together[2]).toEqual(alone);
  });

  test("a pass that fails leaves the model usable", async () => {
    using cache = model.createCache(4);
    const failing = { sites: ["mlpInput"] as const, onActivation: () => Promise.reject(new Error("tap failed")) };
    const failed = model.forward(ids.subarray(0, 2), cache, 0, { tap: failing });
    const next = logitsOf(model, ids);
    await expect(failed).rejects.toThrow("tap failed");
    expect((await next).length).toBe(ids.length);
  });

  test("disposing gives the working memory back", async () => {
    const own = await openBackend("reference");
    const other = await load(path("arch/llama"), own, "f32");
    const loaded = own.memoryBytes();
    const cache = other.createCache(8);
    const logits = (await other.forward(ids.subarray(0, 8), cache, 0))!;
    expect(own.memoryBytes()).toBeGreaterThan(loaded);
    own.release(logits);
    cache[Symbol.dispose]();
    other[Symbol.dispose]();
    // The rotary table, of all the positions the model was made for, stays with the weights.
    expect(own.memoryBytes()).toBe(loaded + 2 * 4 * 256 * (other.config.headDim / 2));
    own[Symbol.dispose]();
  });

  test("positions and capacities outside what there is are refused", async () => {
    using cache = model.createCache(10);
    await expect(model.forward(ids, cache, 0)).rejects.toThrow("positions 0 … 23 in a cache of 10");
    await expect(model.forward(ids.subarray(0, 1), cache, -1)).rejects.toThrow(UsageError);
    await expect(model.forward(new Uint32Array(), cache, 0)).rejects.toThrow("no tokens");
    expect(() => model.createCache(0)).toThrow(UsageError);
    expect(() => model.createCache(257)).toThrow("made for 256");
    const longer = model.createCache(257, { allowBeyondTraining: true });
    expect(longer.spec.slots).toBe(257);
    longer[Symbol.dispose]();
  });
});

describe("activation thresholds", () => {
  test("of 0 change nothing; undefined is dense again", async () => {
    const dense = await run();
    model.thresholds = { projections: [record(() => 0), record(() => 0)] };
    expect(await run()).toEqual(dense);
    model.thresholds = various;
    expect(await run()).not.toEqual(dense);
    model.thresholds = undefined;
    expect(await run()).toEqual(dense);
  });

  test("many rows at once give what one by one gives, within 1e-4", async () => {
    model.thresholds = various;
    expectClose(await run({}, 1), await run(), 1e-4);
    expectClose(await run({ sparseFrom: 9 }, 4), await run({ sparseFrom: 9 }), 1e-4);
  });

  test("apply from position sparseFrom on: everything before is the dense model's, bit for bit", async () => {
    const dense = await run();
    model.thresholds = { ...various, gate: [0.1, 0.1] };
    for (const chunk of [24, 5]) {
      const sparse = await run({ sparseFrom: 9 }, chunk);
      expect(sparse.slice(0, 9)).toEqual(dense.slice(0, 9));
      for (let position = 9; position < ids.length; position++) {
        expect(sparse[position], `position ${position}`).not.toEqual(dense[position]);
      }
    }
    expect(await run({ sparseFrom: 100 })).toEqual(dense);
  });

  test("act on the projection they name, and taps see what is there before them", async () => {
    const siteOf = (projection: Projection) =>
      (Object.keys(tapSites) as TapSite[]).find((site) => (tapSites[site] as readonly string[]).includes(projection))!;
    for (const projection of projections) {
      const threshold = 0.2;
      model.thresholds = { projections: [record(() => 0), record((name) => (name === projection ? threshold : 0))] };
      const site = siteOf(projection);
      const seen = await watch([site], {}, 1);
      const inputs = seen.get(`1 ${site}`)!.flatMap((values) => [...values]);
      const below = inputs.filter((v) => Math.abs(v) <= Math.fround(threshold)).length;
      expect(inputs.filter((v) => v !== 0 && Math.abs(v) <= threshold).length).toBeGreaterThan(0);

      backend.takeCounters();
      await run({}, 1);
      const zeros = inputs.filter((v) => v === 0).length;
      const stacked = tapSites[site].length;
      expect(backend.takeCounters(), projection).toMatchObject({
        inputs: stacked * inputs.length,
        inputsSkipped: below + (stacked - 1) * zeros,
      });
    }
  });

  test("a gate threshold zeroes hidden values whose |f(gate)| is below it (CATS), and those are skipped", async () => {
    const gate = [0.2, 0.3];
    model.thresholds = { projections: [record(() => 0), record(() => 0)], gate };
    const seen = await watch(["mlpGate", "mlpHidden"], {}, 1);
    let dropped = 0;
    for (const layer of [0, 1]) {
      const gates = seen.get(`${layer} mlpGate`)!.flatMap((values) => [...values]);
      const hidden = seen.get(`${layer} mlpHidden`)!.flatMap((values) => [...values]);
      const isDropped = gates.map((v) => Math.abs(Math.fround(activationFunctions.silu(v))) < gate[layer]);
      expect(hidden.map((v) => v === 0)).toEqual(isDropped);
      dropped += isDropped.filter(Boolean).length;
    }
    backend.takeCounters();
    await run({}, 1);
    expect(dropped).toBeGreaterThan(1000);
    expect(backend.takeCounters()).toMatchObject({ inputs: 2 * 24 * 160, inputsSkipped: dropped });
  });

  test("exact zeros of a ReLU are skipped without loss", async () => {
    const checkpoint = await MemoryCheckpoint.golden("qwen3");
    checkpoint.config.hidden_act = "relu";
    const own = await openBackend("reference");
    const relu = await loadModel(checkpoint, own, { weights: "f32" });
    const dense = await logitsOf(relu, ids, 1);
    expect(own.takeCounters().inputs).toBe(0);
    relu.thresholds = { projections: [record(() => 0), record(() => 0)] };
    expect(await logitsOf(relu, ids, 1)).toEqual(dense);
    const { inputs, inputsSkipped } = own.takeCounters();
    expect(inputs).toBe(2 * 24 * 160);
    expect(inputsSkipped / inputs).toBeGreaterThan(0.3);
    own[Symbol.dispose]();
  });

  test("for the wrong number of layers, negative or not numbers are refused", () => {
    const set = (thresholds: ActivationThresholds) => () => {
      model.thresholds = thresholds;
    };
    expect(set({ projections: [record(() => 0)] })).toThrow("thresholds of 1 layers");
    expect(set({ projections: various.projections, gate: [1] })).toThrow(UsageError);
    expect(set({ projections: [record(() => 0), record(() => -1)] })).toThrow("layer 1: the threshold of q_proj is -1");
    expect(set({ projections: various.projections, gate: [0, Number.NaN] })).toThrow("gate threshold is NaN");
    expect(model.thresholds).toBeUndefined();
  });
});

describe("taps", () => {
  test("see every site of every layer in order, with its width", async () => {
    const calls: string[] = [];
    const onActivation = async (layer: number, site: TapSite, activation: Activation) => {
      calls.push(`${layer} ${site} ${activation.rows}x${activation.cols}`);
    };
    using cache = model.createCache(3);
    const sites = Object.keys(tapSites) as TapSite[];
    await model.forward(ids.subarray(0, 3), cache, 0, { logits: "none", tap: { sites, onActivation } });
    const layer = (n: number) => [
      `${n} attentionInput 3x64`,
      `${n} attentionOutput 3x64`,
      `${n} mlpInput 3x64`,
      `${n} mlpGate 3x160`,
      `${n} mlpHidden 3x160`,
    ];
    expect(calls).toEqual([...layer(0), ...layer(1)]);
  });

  test("see only the sites they ask for, and change nothing", async () => {
    const dense = await run();
    const seen = await watch(["mlpHidden"]);
    expect([...seen.keys()]).toEqual(["0 mlpHidden", "1 mlpHidden"]);
    expect(await run()).toEqual(dense);
  });
});
