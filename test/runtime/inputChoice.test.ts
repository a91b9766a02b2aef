import { afterAll, beforeAll, expect, test } from "vitest";
import { activationOf, readersOf } from "../../src/arch/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds, Model, PassThresholds } from "../../src/model/index.js";
import { parseSparsity, Sequence } from "../../src/runtime/index.js";
import { architectureNames, load, path } from "../golden/golden.js";
import { arbitraryText, distance } from "./naiveLlama.js";

/** Inputs that are skipped by what they are: the zeros of a ReLU without being asked, the smallest of a token where asked. */
let backend: Backend;
beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
});
afterAll(() => backend[Symbol.dispose]());

const prompt = arbitraryText(5);
const next = Uint32Array.of(35);

/** The logits of one token behind a prompt that ran dense, and what its products read. */
async function decode(model: Model, thresholds?: PassThresholds) {
  using cache = model.createCache(8);
  await model.forward(prompt, cache, 0, { thresholds: "dense", logits: "none" });
  await backend.flush();
  backend.takeCounters();
  const logits = (await model.forward(next, cache, prompt.length, { thresholds }))!;
  const values = await backend.read(logits);
  backend.release(logits);
  return { values, ...backend.takeCounters() };
}

test("a model with ReLU reads less without being asked, and says the same", async () => {
  using model = await load(path("arch/opt"), backend, "f32");
  const [own, exact, dense] = [await decode(model), await decode(model, "exact"), await decode(model, "dense")];
  expect(own).toEqual(exact);
  expect(distance(own.values, dense.values)).toBeLessThan(1e-5);
  expect(dense.inputs).toBe(0);
  expect(dense.weightBytesRead).toBe(model.weightBytes.perToken);
  // Counted at every place: only the maps behind the ReLU are asked, and of those the zeros alone are skipped.
  let zeros = 0;
  let inputs = 0;
  using cache = model.createCache(8);
  const [block] = model.config.spec.blocks;
  const { readers } = activationOf(block)!;
  const [behind] = [...readersOf(block)].find(([, roles]) => roles.join() === readers.join())!;
  await model.forward(prompt, cache, 0, { thresholds: "dense", logits: "none" });
  await model.forward(next, cache, prompt.length, {
    logits: "none",
    tap: {
      sites: [behind],
      onActivation: async (_layer, _site, activation) => {
        const values = await backend.read(activation);
        inputs += values.length;
        zeros += values.filter((value) => value === 0).length;
      },
    },
  });
  expect({ inputs: own.inputs, inputsSkipped: own.inputsSkipped }).toEqual({ inputs, inputsSkipped: zeros });
  expect(zeros).toBeGreaterThan(0);
  expect(own.weightBytesRead).toBeLessThan(dense.weightBytesRead);
});

test("a model without ReLU is left alone, to the bit", async () => {
  using model = await load(path("arch/llama"), backend, "f32");
  expect(await decode(model)).toEqual(await decode(model, "dense"));
});

/** What every linear map of a token sees, by layer and site, as the model runs with `thresholds`. */
async function seenBy(model: Model, thresholds: PassThresholds) {
  const seen = model.config.spec.blocks.map(() => new Map<string, Float32Array>());
  using cache = model.createCache(8);
  await model.forward(prompt, cache, 0, { thresholds: "dense", logits: "none" });
  const sites = model.config.spec.blocks.flatMap((block) => [...readersOf(block).keys()]);
  await model.forward(next, cache, prompt.length, {
    logits: "none",
    thresholds,
    tap: {
      sites: [...new Set(sites)],
      onActivation: async (layer, site, activation) => {
        seen[layer].set(site, await backend.read(activation));
      },
    },
  });
  return seen;
}

test("topk is what thresholds at the first magnitude left out are, and skips exactly its share", async () => {
  using model = await load(path("arch/llama"), backend, "f32");
  const zeros = 0.6;
  const topk = parseSparsity(`topk:zeros=${zeros}`).of(model.config.layers);
  const seen = await seenBy(model, topk);
  let [inputs, skipped] = [0, 0];
  const maps = model.config.spec.blocks.map((block, layer) => {
    const thresholds: Record<string, number> = {};
    for (const [site, roles] of readersOf(block)) {
      const values = seen[layer].get(site)!;
      const kept = Math.round((1 - zeros) * values.length);
      const magnitudes = Array.from(values, Math.abs).sort((a, b) => b - a);
      for (const role of roles) thresholds[role] = magnitudes[kept];
      inputs += roles.length * values.length;
      skipped += roles.length * (values.length - kept);
    }
    return thresholds;
  });
  const [chosen, cut] = [await decode(model, topk), await decode(model, { maps } satisfies ActivationThresholds)];
  expect(chosen).toEqual(cut);
  expect({ inputs: chosen.inputs, inputsSkipped: chosen.inputsSkipped }).toEqual({ inputs, inputsSkipped: skipped });
  expect(distance(chosen.values, (await decode(model, "dense")).values)).toBeGreaterThan(1e-3);
});

test("rows of a prompt before the first sparse one stay dense", async () => {
  using model = await load(path("arch/llama"), backend, "f32");
  const thresholds = parseSparsity("topk:zeros=0.8").of(model.config.layers);
  const logitsOf = async (options: { thresholds: PassThresholds; sparseFrom?: number }) => {
    using cache = model.createCache(8);
    const logits = (await model.forward(prompt, cache, 0, { logits: "all", ...options }))!;
    const values = await backend.read(logits);
    const cols = logits.cols;
    backend.release(logits);
    return Array.from(prompt, (_, row) => values.slice(row * cols, (row + 1) * cols));
  };
  const [dense, half] = [await logitsOf({ thresholds: "dense" }), await logitsOf({ thresholds, sparseFrom: 3 })];
  for (const row of [0, 1, 2]) expect(distance(half[row], dense[row])).toBeLessThan(1e-5);
  for (const row of [3, 4]) expect(distance(half[row], dense[row])).toBeGreaterThan(1e-3);
});

test.each(architectureNames)("%s: tokens one by one choose as tokens together do", async (name) => {
  using own = await openBackend("wasm", { threads: 1 });
  using model = await load(path(`arch/${name}`), own, "f32");
  for (const written of ["topk:zeros=0.5", "blocks:keep=3,of=8"]) {
    const thresholds = parseSparsity(written).of(model.config.layers);
    const rows: Float32Array[] = [];
    for (const count of [prompt.length, 1]) {
      using sequence = new Sequence(model, 8, { thresholds });
      let values = new Float32Array();
      for (let at = 0; at < prompt.length; at += count) {
        const logits = await sequence.run(prompt.subarray(at, at + count));
        values = (await own.read(logits)) as Float32Array<ArrayBuffer>;
        own.release(logits);
      }
      rows.push(values);
    }
    expect(distance(rows[1], rows[0]), written).toBeLessThan(2e-4);
    expect(rows[0].every(Number.isFinite)).toBe(true);
  }
});
