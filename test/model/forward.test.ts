import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { activationFunctions, UsageError } from "../../src/core/index.js";
import { type Activation, type Backend, openBackend } from "../../src/kernels/index.js";
import { type ActivationThresholds, type ForwardOptions, loadModel, type Model } from "../../src/model/index.js";
import { architectureGolden, load, logitsOf, path } from "../golden/golden.js";
import { byRole, roles, siteOf, sites } from "../support/gatedBlock.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const ids = architectureGolden("qwen3").ids;
let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/qwen3"), backend, "f32");
});
afterAll(() => backend[Symbol.dispose]());

/** Different for every map of every layer. */
const various: ActivationThresholds = {
  maps: [0, 1].map((layer) => byRole((role) => 0.1 + 0.03 * roles.indexOf(role) + 0.05 * layer)),
};
const zeros = [byRole(() => 0), byRole(() => 0)];

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
async function watch(sites: readonly string[], options: ForwardOptions = {}, chunk = ids.length) {
  const seen = new Map<string, Float32Array[]>();
  const onActivation = async (layer: number, site: string, activation: Activation) => {
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
    const failing = { sites: ["mlpInput"], onActivation: () => Promise.reject(new Error("tap failed")) };
    const failed = model.forward(ids.subarray(0, 2), cache, 0, { tap: failing });
    const next = logitsOf(model, ids);
    await expect(failed).rejects.toThrow("tap failed");
    expect((await next).length).toBe(ids.length);
  });

  test("disposing gives all memory back, and so does a load that fails", async () => {
    using own = await openBackend("reference");
    const other = await load(path("arch/llama"), own, "f32");
    expect(own.memoryBytes()).toBeGreaterThanOrEqual(other.weightBytes.loaded);
    const cache = other.createCache(8);
    own.release((await other.forward(ids.subarray(0, 8), cache, 0))!);
    cache[Symbol.dispose]();
    other[Symbol.dispose]();
    expect(own.memoryBytes()).toBe(0);
    const controller = new AbortController();
    const onProgress = () => controller.abort();
    const failing = loadModel(await MemoryCheckpoint.golden("llama"), own, {
      weights: "f32",
      signal: controller.signal,
      onProgress,
    });
    await expect(failing).rejects.toThrow(/abort/i);
    expect(own.memoryBytes()).toBe(0);
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
  test("of 0 change nothing; those of one pass are not those of the next", async () => {
    const dense = await run();
    expect(await run({ thresholds: { maps: zeros } })).toEqual(dense);
    expect(await run({ thresholds: various })).not.toEqual(dense);
    expect(await run()).toEqual(dense);
  });

  test("that a model was loaded with are those of every pass that brings none", async () => {
    using own = await openBackend("reference");
    using sparse = await load(path("arch/qwen3"), own, "f32", various);
    expect(sparse.thresholds).toBe(various);
    expect(await logitsOf(sparse, ids)).toEqual(await run({ thresholds: various }));
    expect(await logitsOf(sparse, ids, ids.length, { thresholds: "dense" })).toEqual(await run());
  });

  test("many rows at once give what one by one gives, within 1e-4", async () => {
    const thresholds = various;
    expectClose(await run({ thresholds }, 1), await run({ thresholds }), 1e-4);
    expectClose(await run({ thresholds, sparseFrom: 9 }, 4), await run({ thresholds, sparseFrom: 9 }), 1e-4);
  });

  test("apply from position sparseFrom on: everything before is the dense model's, bit for bit", async () => {
    const dense = await run();
    const thresholds = { ...various, gate: [0.1, 0.1] };
    for (const chunk of [24, 5]) {
      const sparse = await run({ thresholds, sparseFrom: 9 }, chunk);
      expect(sparse.slice(0, 9)).toEqual(dense.slice(0, 9));
      for (let position = 9; position < ids.length; position++) {
        expect(sparse[position], `position ${position}`).not.toEqual(dense[position]);
      }
    }
    expect(await run({ thresholds, sparseFrom: 100 })).toEqual(dense);
  });

  test("act on the map they name, and taps see what is there before them", async () => {
    for (const map of roles) {
      const threshold = 0.2;
      const thresholds = { maps: [byRole(() => 0), byRole((role) => (role === map ? threshold : 0))] };
      const site = siteOf(map);
      const seen = await watch([site], { thresholds }, 1);
      const inputs = seen.get(`1 ${site}`)!.flatMap((values) => [...values]);
      const below = inputs.filter((v) => Math.abs(v) <= Math.fround(threshold)).length;
      expect(inputs.filter((v) => v !== 0 && Math.abs(v) <= threshold).length).toBeGreaterThan(0);

      backend.takeCounters();
      await run({ thresholds }, 1);
      const zeros = inputs.filter((v) => v === 0).length;
      const stacked = sites[site].length;
      expect(backend.takeCounters(), map).toMatchObject({
        inputs: stacked * inputs.length,
        inputsSkipped: below + (stacked - 1) * zeros,
      });
    }
  });

  test("a gate threshold zeroes hidden values whose |f(gate)| is below it (CATS), and those are skipped", async () => {
    const gate = [0.2, 0.3];
    const thresholds = { maps: zeros, gate };
    const seen = await watch(["mlpGate", "mlpHidden"], { thresholds }, 1);
    let dropped = 0;
    for (const layer of [0, 1]) {
      const gates = seen.get(`${layer} mlpGate`)!.flatMap((values) => [...values]);
      const hidden = seen.get(`${layer} mlpHidden`)!.flatMap((values) => [...values]);
      const isDropped = gates.map((v) => Math.abs(Math.fround(activationFunctions.silu(v))) < gate[layer]);
      expect(hidden.map((v) => v === 0)).toEqual(isDropped);
      dropped += isDropped.filter(Boolean).length;
    }
    backend.takeCounters();
    await run({ thresholds }, 1);
    expect(dropped).toBeGreaterThan(1000);
    expect(backend.takeCounters()).toMatchObject({ inputs: 2 * 24 * 160, inputsSkipped: dropped });
  });

  test("exact zeros of a ReLU are skipped without loss", async () => {
    const checkpoint = await MemoryCheckpoint.golden("qwen3");
    checkpoint.config.hidden_act = "relu";
    const own = await openBackend("reference");
    const relu = await loadModel(checkpoint, own, { weights: "f32" });
    const dense = await logitsOf(relu, ids, 1, { thresholds: "dense" });
    expect(own.takeCounters().inputs).toBe(0);
    for (const options of [{}, { thresholds: { maps: zeros } }]) {
      expect(await logitsOf(relu, ids, 1, options)).toEqual(dense);
      const { inputs, inputsSkipped } = own.takeCounters();
      expect(inputs).toBe(2 * 24 * 160);
      expect(inputsSkipped / inputs).toBeGreaterThan(0.3);
    }
    own[Symbol.dispose]();
  });

  test.each([
    [{ maps: zeros.slice(1) }, "thresholds of 1 layers"],
    [{ ...various, gate: [1] }, "(gate: 1) for 2 layers"],
    [{ maps: [zeros[0], byRole(() => -1)] }, "layer 1: the threshold of q_proj is -1"],
    [{ ...various, gate: [0, Number.NaN] }, "gate threshold is NaN"],
  ])("that do not fit are refused by a pass, and before weights are read: %j", async (thresholds, message) => {
    await expect(run({ thresholds })).rejects.toThrow(message);
    const events: unknown[] = [];
    const checkpoint = await MemoryCheckpoint.golden("qwen3");
    const loading = loadModel(checkpoint, backend, { weights: "f32", thresholds, onProgress: (e) => events.push(e) });
    await expect(loading).rejects.toThrow(UsageError);
    expect(events).toEqual([]);
  });
});

describe("taps", () => {
  test("see every site of every layer in order, with its width", async () => {
    const calls: string[] = [];
    const onActivation = async (layer: number, site: string, activation: Activation) => {
      calls.push(`${layer} ${site} ${activation.rows}x${activation.cols}`);
    };
    using cache = model.createCache(3);
    const tap = { sites: Object.keys(sites), onActivation };
    await model.forward(ids.subarray(0, 3), cache, 0, { logits: "none", tap });
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
