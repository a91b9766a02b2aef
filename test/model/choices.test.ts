import { expect, test } from "vitest";
import { openBackend, type ProductCosts } from "../../src/kernels/index.js";
import { describeChoices, loadModel, runsAs, type Structure } from "../../src/model/index.js";
import { isSparse, type PackedFormatId, sparseFormats } from "../../src/pack/index.js";
import { architectureGolden, logitsOf } from "../golden/golden.js";
import { MemoryCheckpoint } from "./memoryCheckpoint.js";

const ids = architectureGolden("llama").ids;
const gate = "model.layers.0.mlp.gate_proj.weight";
const up = "model.layers.0.mlp.up_proj.weight";
const down = "model.layers.0.mlp.down_proj.weight";
const output = "model.layers.1.self_attn.o_proj.weight";

/** gate and up: half zeros; down: 2:4; one output projection: 20 % zeros in the first rows, none after. */
async function sparseCheckpoint(): Promise<MemoryCheckpoint> {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const thin = (name: string, keep: (row: number, c: number) => boolean) => {
    const { shape } = checkpoint.tensors.get(name)!;
    const values = checkpoint.values(name).map((v, i) => (keep(Math.floor(i / shape[1]), i % shape[1]) ? v : 0));
    checkpoint.set(name, shape, values);
  };
  for (const name of [gate, up]) thin(name, (row, c) => (row * 5 + c * 3 + (c >> 3)) % 8 < 4);
  thin(down, (row, c) => (row + c) % 4 < 2);
  thin(output, (row, c) => row > 32 || c % 5 > 0);
  return checkpoint;
}

const shareRead = (format: PackedFormatId, density: number) => {
  const structure = isSparse(format) ? sparseFormats[format].structure : undefined;
  return structure === "2:4" ? 0.5 : structure === "bitmask" ? density + 0.06 : 1;
};
/** Bytes decide: what is smaller is faster. */
const byBytes: ProductCosts = {
  predictMs: (format, rows, cols, density) => rows * cols * shareRead(format, density) * 1e-6,
};
/** Nothing sparse is worth it: 2 % are within what was measured. */
const denseFirst: ProductCosts = {
  predictMs: (format, rows, cols) => (format.length < 5 ? 1 : 0.98) * rows * cols * 1e-6,
};

async function load(structure: Structure | undefined, costs?: ProductCosts, weights: "f32" | "bf16" = "bf16") {
  const backend = await openBackend("reference");
  const model = await loadModel(await sparseCheckpoint(), backend, { weights, structure, costs });
  const formatOf = (name: string) => model.choices.find((choice) => choice.names.includes(name))!.format;
  return { backend, model, formats: [gate, down, output, "lm_head.weight"].map(formatOf) };
}

test("auto takes what the costs say is fastest, per matrix, and tells why", async () => {
  const { model, formats } = await load("auto", byBytes);
  expect(formats).toEqual(["bitmask-bf16", "2:4-bf16", "bitmask-bf16", "bf16"]);
  const [gateChoice, denseChoice] = [gate, "lm_head.weight"].map(
    (name) => model.choices.find(({ names }) => names.includes(name))!,
  );
  expect(gateChoice.names).toEqual([gate, up]);
  expect(gateChoice.density).toBeCloseTo(0.5, 2);
  expect(gateChoice.predictedMs! / gateChoice.denseMs!).toBeCloseTo(0.56, 2);
  expect(gateChoice.reason).toMatch(/^fastest: 0\.01\d ms predicted, dense 0\.02\d ms$/);
  expect(runsAs([gateChoice])[0].reasons).toEqual(["fastest"]);
  expect(denseChoice.reason).toBe("dense: hardly any weight is 0");
  expect(describeChoices(model.choices)).toBe(
    "6 × bf16 (dense: hardly any weight is 0), 2 × bitmask-bf16, 1 × 2:4-bf16",
  );
});

test("where nothing is faster than dense it stays dense and says so with the figures", async () => {
  const { model, formats } = await load("auto", denseFirst);
  expect(new Set(formats)).toEqual(new Set(["bf16"]));
  const reasons = model.choices.filter(({ names }) => names.includes(down)).map(({ reason }) => reason);
  expect(reasons).toEqual(["dense: bitmask-bf16 is no faster, 0.010 ms predicted, dense 0.010 ms"]);
  expect(describeChoices(model.choices)).toContain("3 × bf16 (dense: bitmask-bf16 is no faster)");
});

test("a prompt's tokens count as much as those that are generated", async () => {
  const slowPrompts: ProductCosts = {
    ...byBytes,
    predictPromptMs: (format, rows, cols) => (isSparse(format) ? 0.9 : 0.3) * rows * cols * 1e-6,
  };
  const { model, formats } = await load("auto", slowPrompts);
  expect(new Set(formats)).toEqual(new Set(["bf16"]));
  const [reason] = model.choices.filter(({ names }) => names.includes(down)).map(({ reason }) => reason);
  expect(reason).toMatch(
    /^dense: 2:4-bf16 is no faster, .* predicted, dense .* ms; .* for a token of a prompt, dense .* ms$/,
  );
  expect(describeChoices(model.choices)).toContain("1 × bf16 (dense: 2:4-bf16 is no faster)");
  const evenPrompts = {
    ...byBytes,
    predictPromptMs: (_: PackedFormatId, rows: number, cols: number) => rows * cols * 1e-7,
  };
  expect((await load("auto", evenPrompts)).formats).toEqual(["bitmask-bf16", "2:4-bf16", "bitmask-bf16", "bf16"]);
});

test("a structure by name is taken where it can hold the matrix; dense and f32 stay dense", async () => {
  expect((await load("2:4")).formats).toEqual(["bf16", "2:4-bf16", "bf16", "bf16"]);
  expect((await load("bitmask")).formats).toEqual(["bitmask-bf16", "bitmask-bf16", "bitmask-bf16", "bf16"]);
  expect((await load("dense", byBytes)).formats).toEqual(["bf16", "bf16", "bf16", "bf16"]);
  expect((await load("auto", byBytes, "f32")).formats).toEqual(["f32", "f32", "f32", "f32"]);
});

test("the reference backend without costs stays dense", async () => {
  const { model } = await load(undefined);
  expect(model.choices.find(({ names }) => names.includes(gate))!.reason).toBe(
    "dense: the backend has no sparse kernels for bf16",
  );
});

test.each(["bf16", "q8", "q4"] as const)("logits in %s do not depend on the structure", async (weights) => {
  const rows: Float32Array[][] = [];
  for (const structure of ["dense", "bitmask", "2:4"] as const) {
    using backend = await openBackend("wasm", { threads: 2 });
    using model = await loadModel(await sparseCheckpoint(), backend, { weights, structure });
    rows.push([...(await logitsOf(model, ids)), ...(await logitsOf(model, ids, 1))]);
  }
  for (const other of rows.slice(1)) {
    for (const [position, row] of other.entries()) {
      const worst = row.reduce((most, v, i) => Math.max(most, Math.abs(v - rows[0][position][i])), 0);
      expect(worst, `position ${position}`).toBeLessThan(1e-3);
    }
  }
});

test("wasm measures costs once, in a second or so, and predicts less time for fewer weights", async () => {
  using backend = await openBackend("wasm", { threads: 2 });
  const before = backend.memoryBytes();
  const costs = await backend.measureCosts!("bf16");
  expect(await backend.measureCosts!("bf16")).toBe(costs);
  expect(backend.memoryBytes()).toBe(before);
  const ms = (density: number) => costs.predictMs("bitmask-bf16", 4096, 4096, density);
  for (const value of [ms(0.05), ms(0.5), ms(1), costs.predictMs("2:4-bf16", 4096, 4096, 0.5)]) {
    expect(value).toBeGreaterThan(0);
    expect(value).toBeLessThan(1000);
  }
  for (const format of ["bf16", "2:4-bf16", "bitmask-bf16"] as const) {
    const token = costs.predictPromptMs!(format, 4096, 4096, 0.5);
    expect(token).toBeGreaterThan(0);
    expect(token).toBeLessThan(1000);
  }
  expect(costs.predictMs("bf16", 4096, 8192, 1)).toBeCloseTo(2 * costs.predictMs("bf16", 4096, 4096, 1), 6);
});
