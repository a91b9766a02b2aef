import { afterAll, beforeAll, expect, test } from "vitest";
import { FormatError, ProblemsError } from "../../src/core/index.js";
import { RealisedSparsity } from "../../src/eval/realisedSparsity.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import {
  type ActivationThresholds,
  describeDecoder,
  type ForwardOptions,
  loadModel,
  type Model,
} from "../../src/model/index.js";
import { architectureGolden, load, logitsOf, path } from "../golden/golden.js";
import { roles, sites } from "../support/gatedBlock.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const { ids } = architectureGolden("mixtral");
let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/mixtral"), backend, "f32");
});
afterAll(() => backend[Symbol.dispose]());

const thresholds: ActivationThresholds = {
  maps: Array.from({ length: 2 }, () => Object.fromEntries(roles.map((role, r) => [role, 0.05 * (r + 1)]))),
  gate: [0.05, 0.1],
};

const worst = (a: Float32Array[], b: Float32Array[]) =>
  Math.max(...a.map((row, i) => row.reduce((most, v, c) => Math.max(most, Math.abs(v - b[i][c])), 0)));

test.each([0, 5, 11, ids.length])("thresholds from position %i on: passes of any length agree", async (sparseFrom) => {
  const logits = (chunk: number) => logitsOf(model, ids, chunk, { sparseFrom, thresholds });
  const [whole, oneByOne] = [await logits(ids.length), await logits(1)];
  expect(worst(whole, oneByOne)).toBeLessThan(1e-4);
  const dense = await logitsOf(model, ids);
  const changed = worst(whole.slice(sparseFrom), dense.slice(sparseFrom));
  expect(worst(whole.slice(0, sparseFrom), dense.slice(0, sparseFrom))).toBeLessThan(1e-5);
  if (sparseFrom < ids.length) expect(changed).toBeGreaterThan(1e-3);
});

test("a token reads the matrices of its experts only, and thresholds skip inputs of theirs", async () => {
  using cache = model.createCache(4);
  const step = async (position: number, options: ForwardOptions = {}) => {
    backend.takeCounters();
    backend.release((await model.forward(ids.slice(position, position + 1), cache, position, options))!);
    return backend.takeCounters();
  };
  const matrix = 160 * 64 * 4;
  const outside = model.weightBytes.perToken - 2 * 2 * 3 * matrix;
  expect(await step(0)).toMatchObject({ weightBytesRead: outside + 2 * 2 * 3 * matrix, inputs: 0, inputsSkipped: 0 });
  const { inputs, inputsSkipped } = await step(1, { thresholds });
  // q, k, v and o; gate and up of two experts, and their down; in two layers.
  expect(inputs).toBe(2 * (4 * 64 + 2 * (2 * 64 + 160)));
  expect(inputsSkipped).toBeGreaterThan(100);
});

test("a tap is told whose rows the experts see", async () => {
  using cache = model.createCache(ids.length);
  const seen: string[] = [];
  const onActivation: NonNullable<Parameters<Model["forward"]>[3]>["tap"] = {
    sites: Object.keys(sites),
    async onActivation(layer, site, activation, slots) {
      seen.push(`${layer} ${site} ${activation.rows}`);
      if (slots === undefined) return;
      expect([slots.firstRow, slots.of]).toEqual([0, site === "mlpInput" ? "rows" : "slots"]);
      const perRow = Array.from(ids, (_, row) => slots.experts.filter((_, s) => slots.rows[s] === row));
      for (const experts of perRow) expect(new Set(experts).size).toBe(2);
    },
  };
  await model.forward(ids, cache, 0, { logits: "none", tap: onActivation });
  const n = ids.length;
  const places = [
    `attentionInput ${n}`,
    `attentionOutput ${n}`,
    `mlpInput ${n}`,
    `mlpGate ${2 * n}`,
    `mlpHidden ${2 * n}`,
  ];
  expect(seen).toEqual([0, 1].flatMap((layer) => places.map((place) => `${layer} ${place}`)));
});

test("realised sparsity counts rows from the first sparse one on, in slots too", async () => {
  const seen = async (firstRow: number) => {
    using cache = model.createCache(ids.length);
    const counted = new RealisedSparsity(model, thresholds, firstRow);
    await model.forward(ids, cache, 0, { logits: "none", tap: counted.tap, sparseFrom: firstRow, thresholds });
    return counted.sparsity;
  };
  expect(await seen(0)).toBeGreaterThan(0.05);
  expect(await seen(ids.length - 4)).toBeGreaterThan(0.05);
  expect(await seen(ids.length)).toBe(0);
});

test.each([
  [{ num_local_experts: 0 }, "num_local_experts"],
  [{ num_local_experts: 2, num_experts_per_tok: 3 }, "num_experts_per_tok"],
  [{ num_experts_per_tok: 0 }, "num_experts_per_tok"],
  [{ num_local_experts: 1e9 }, "num_local_experts"],
  [{ num_local_experts: 1024, num_hidden_layers: 4096 }, "num_local_experts"],
  [{ num_local_experts: "8" }, "num_local_experts"],
])("a config with %o is refused by field", async (changes, field) => {
  const checkpoint = await MemoryCheckpoint.golden("mixtral");
  Object.assign(checkpoint.config, changes);
  const error = await describeDecoder(checkpoint).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(FormatError);
  expect((error as Error).message).toContain(field);
});

test("more experts than are stored, a router and an expert of other shapes are all named", async () => {
  const checkpoint = await MemoryCheckpoint.golden("mixtral");
  checkpoint.config.num_local_experts = 5;
  const layer = "model.layers.1.block_sparse_moe";
  checkpoint.set(`${layer}.experts.2.w2.weight`, [64, 156], new Float32Array(64 * 156));
  const error = await describeDecoder(checkpoint).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(ProblemsError);
  const text = (error as ProblemsError).problems.join("\n");
  for (const part of [`${layer}.gate.weight`, `${layer}.experts.4.w1.weight`, `${layer}.experts.2.w2.weight`])
    expect(text).toContain(part);
});

test.each(["q8", "q4"] as const)("%s holds experts; the router keeps its precision", async (weights) => {
  using wasm = await openBackend("wasm", { threads: 1 });
  using packed = await loadModel(await MemoryCheckpoint.golden("mixtral"), wasm, { weights });
  using cache = packed.createCache(ids.length);
  const out = (await packed.forward(ids, cache, 0))!;
  const golden = architectureGolden("mixtral").lastLogits;
  const values = await wasm.read(out);
  const errors = [...golden].map(([id, logit]) => Math.abs(values[id] - logit));
  expect(errors.reduce((sum, e) => sum + e) / errors.length).toBeLessThan(weights === "q8" ? 0.05 : 0.3);
});
