import { beforeAll, expect, test } from "vitest";
import type { RecipeInput } from "../../src/compress/index.js";
import { ProblemsError } from "../../src/core/index.js";
import { compressionOf } from "../../src/io/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { planCompression } from "../../src/pipeline/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { calibration, compress, jobOptions, logits, relativeDifference } from "./support.js";

type Stages = RecipeInput["stages"];
const moe = (layer: number) => `model.layers.${layer}.block_sparse_moe`;
const expertMatrix = (layer: number, expert: number, name: string) => `${moe(layer)}.experts.${expert}.${name}.weight`;

let checkpoint: MemoryCheckpoint;
beforeAll(async () => {
  checkpoint = await MemoryCheckpoint.golden("mixtral");
});

async function problemsOf(stages: Stages): Promise<string> {
  const error = await planCompression(checkpoint, jobOptions({ stages })).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(ProblemsError);
  return (error as ProblemsError).problems.join("\n");
}

/** Σ x² of what each expert of layer 0 sees, watched in the whole model. */
async function watchedSquares() {
  using backend = await openBackend("reference");
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  const squares = Array.from({ length: 4 }, () => ({ tokens: 0, sums: new Float64Array(64) }));
  const { tokens } = calibration;
  for (let start = 0; start < tokens.length; start += 16) {
    using cache = model.createCache(16);
    const tap: NonNullable<Parameters<typeof model.forward>[3]>["tap"] = {
      sites: ["mlpInput"],
      async onActivation(layer, _site, activation, slots) {
        if (layer > 0) return;
        const values = await backend.read(activation);
        for (const [s, expert] of slots!.experts.entries()) {
          squares[expert].tokens++;
          for (let c = 0; c < 64; c++) squares[expert].sums[c] += values[slots!.rows[s] * 64 + c] ** 2;
        }
      },
    };
    await model.forward(tokens.slice(start, start + 16), cache, 0, { logits: "none", tap });
  }
  return squares;
}

test("Wanda scores each expert by the tokens that it saw, in no other order", async () => {
  const { opened, artifact } = await compress(checkpoint, {
    stages: [
      { type: "prune", method: "wanda", pattern: { type: "unstructured", sparsity: 0.5 }, targets: ["**.w1.weight"] },
    ],
  });
  const squares = await watchedSquares();
  for (const [expert, { tokens, sums }] of squares.entries()) {
    const name = expertMatrix(0, expert, "w1");
    const [before, after] = [checkpoint.values(name), await opened.readFloat32(name)];
    expect(compressionOf(artifact)!.layers[0].matrices[`experts.${expert}.gate_proj`].tokens).toBe(tokens);
    for (let row = 0; row < 160; row++) {
      const order = Array.from({ length: 64 }, (_, c) => c).sort(
        (a, b) =>
          Math.abs(before[row * 64 + a]) * Math.sqrt(sums[a]) - Math.abs(before[row * 64 + b]) * Math.sqrt(sums[b]),
      );
      const zeros = order.filter((c) => after[row * 64 + c] === 0);
      expect(zeros).toEqual(order.slice(0, 32));
    }
  }
  for (const name of [`${moe(0)}.gate.weight`, expertMatrix(0, 0, "w2")])
    expect(await opened.readFloat32(name)).toEqual(checkpoint.values(name));
});

test.each<[string, Stages]>([
  ["SparseGPT 2:4", [{ type: "prune", method: "sparsegpt", pattern: "2:4" }]],
  ["GPTQ at 8 bits", [{ type: "quantize", method: "gptq", options: { bits: 8 } }]],
  ["AWQ at 8 bits", [{ type: "quantize", method: "awq", options: { bits: 8 } }]],
  ["neurons", [{ type: "prune", method: "wanda", pattern: { type: "neurons", sparsity: 0.25 }, multipleOf: 4 }]],
])("%s: all experts of every layer, and the result loads again", async (what, stages) => {
  const { opened, artifact } = await compress(checkpoint, { stages });
  const [{ matrices }] = compressionOf(artifact)!.layers;
  expect(Object.keys(matrices).filter((key) => key.startsWith("experts.")).length).toBe(4 * 3);
  const changed = relativeDifference(await logits(opened), await logits(checkpoint));
  expect(changed).toBeGreaterThan(0);
  if (what.endsWith("8 bits")) expect(changed).toBeLessThan(0.1);
  if (what === "neurons") expect(matrices["experts.3.down_proj"]).toMatchObject({ rows: 64, cols: 120 });
  if (what.includes("2:4")) {
    const values = await opened.readFloat32(expertMatrix(1, 2, "w3"));
    for (let i = 0; i < values.length; i += 4)
      expect(values.subarray(i, i + 4).filter((v) => v !== 0).length).toBeLessThanOrEqual(2);
  }
});

test("scaling inputs of experts by their norm changes nothing but the place of the factors: the router takes them too", async () => {
  const { opened } = await compress(checkpoint, {
    stages: [{ type: "scale", method: "smoothquant", targets: ["**.gate_proj.weight", "**.up_proj.weight"] }],
  });
  expect(relativeDifference(await logits(opened), await logits(checkpoint))).toBeLessThan(1e-4);
  const router = `${moe(0)}.gate.weight`;
  expect(relativeDifference(await opened.readFloat32(router), checkpoint.values(router))).toBeGreaterThan(0.01);
});

test("an expert that saw no token is compressed by its weights alone, and that is on record", async () => {
  const unseen = await MemoryCheckpoint.golden("mixtral");
  // Logits that are all alike go to the lowest experts: 2 and 3 are never chosen.
  unseen.set(`${moe(0)}.gate.weight`, [4, 64], new Float32Array(4 * 64));
  const { opened, artifact } = await compress(unseen, {
    stages: [{ type: "prune", method: "sparsegpt", pattern: { type: "unstructured", sparsity: 0.5 } }],
  });
  const { matrices } = compressionOf(artifact)!.layers[0];
  expect(matrices["experts.0.gate_proj"].tokens).toBe(calibration.tokens.length);
  expect(matrices["experts.3.gate_proj"]).toMatchObject({ tokens: 0, sparsity: 0.5 });
  expect(matrices["experts.3.gate_proj"].relativeError).toBeUndefined();
  const name = expertMatrix(0, 3, "w1");
  const [before, after] = [unseen.values(name), await opened.readFloat32(name)];
  for (const [i, value] of after.entries()) expect(value === 0 || value === before[i]).toBe(true);
});

test("what experts cannot do is refused before anything runs", async () => {
  const neurons = { type: "neurons", sparsity: 0.25 } as const;
  expect(await problemsOf([{ type: "lowRank", method: "svd", rank: 16 }])).toContain(
    "experts cannot be stored as factors",
  );
  expect(
    await problemsOf([{ type: "prune", method: "magnitude", pattern: { ...neurons, scope: "global" }, multipleOf: 4 }]),
  ).toContain("cannot share one threshold");
  expect(
    await problemsOf([
      { type: "prune", method: "magnitude", pattern: neurons, multipleOf: 4, ignore: ["**.experts.2.**"] },
    ]),
  ).toContain("experts.2");
});
