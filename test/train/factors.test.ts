import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import type { RecipeInput } from "../../src/compress/index.js";
import { Random } from "../../src/core/index.js";
import { openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { trainToDirectory } from "../../src/jobs/index.js";
import { describeDecoder } from "../../src/model/index.js";
import { elementCount, type Factors } from "../../src/tensor/index.js";
import { factorMatrix, factorPartShapes } from "../../src/tensor/internal.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { multiply, sum } from "../../src/train/engine/ops.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { adaptedObjective, adapterMethods, modelParameters, modulesOf, readWeights } from "../../src/train/index.js";
import { tracedMatrix } from "../../src/train/trace/factors.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { compress, logits, morphemicTokens, randomTokens, relativeDifference } from "../compress/support.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const forms: Record<string, [Factors, { rows: number; cols: number }]> = {
  product: [
    { kind: "product", rank: 3 },
    { rows: 7, cols: 6 },
  ],
  "train of three cores": [
    { kind: "tensor-train", rowModes: [2, 3, 2], colModes: [2, 2, 3], ranks: [3, 2] },
    { rows: 11, cols: 12 },
  ],
  "train with dense rows": [
    { kind: "tensor-train", rowModes: [2, 4], colModes: [3, 2], ranks: [2], dense: { first: 3, rows: 2 } },
    { rows: 9, cols: 6 },
  ],
  tucker: [
    { kind: "tucker", rowModes: [3, 4], colModes: [2, 3], rowRanks: [2, 3], colRanks: [2, 2] },
    { rows: 11, cols: 6 },
  ],
  kronecker: [
    { kind: "kronecker", rowModes: [2, 3, 2], colModes: [2, 2, 2], rank: 2 },
    { rows: 10, cols: 8 },
  ],
  word2ket: [
    { kind: "word2ket", colModes: [2, 3], rank: 2 },
    { rows: 5, cols: 6 },
  ],
  "two morphemes": [
    { kind: "morphemes", order: 2, morphemes: 4, width: 3, rank: 2, norm: false },
    { rows: 5, cols: 8 },
  ],
  "three morphemes, a norm": [
    { kind: "morphemes", order: 3, morphemes: 5, width: 2, rank: 3, norm: true },
    { rows: 6, cols: 8 },
  ],
};

describe.each(Object.entries(forms))("%s", (_, [form, shape]) => {
  // 64-bit floats, to be differentiated numerically.
  beforeAll(() => startEngine("cpu"));
  const random = new Random(3);
  const shapes = Object.entries(factorPartShapes(form, shape));
  const integers = Object.fromEntries(
    shapes.flatMap(([name, { shape, below }]) =>
      below ? [[name, Uint32Array.from({ length: elementCount(shape) }, () => random.integer(below))]] : [],
    ),
  );
  const learnt = shapes.filter(([name]) => !(name in integers));
  const parts = new Map(
    learnt.map(([name, { shape }]) => [
      name,
      Float64Array.from({ length: elementCount(shape) }, () => random.normal()),
    ]),
  );
  const parameters = learnt.map(([name, { shape }]) => ({ name, shape, layer: "", role: "dense" as const }));
  const outer = Float64Array.from({ length: shape.rows * shape.cols }, () => random.normal());
  const batch = { outer: { shape: [shape.rows, shape.cols], values: outer } };

  test("is the matrix that its parts make, and gradients of the parts are those of central differences", async () => {
    using objective = tracedObjective({
      parameters,
      predict: (weights) => tracedMatrix(form, shape, weights, integers),
      loss: (weights, { outer }) => ({ loss: sum(multiply(tracedMatrix(form, shape, weights, integers), outer)) }),
    });
    const single = Object.fromEntries(Array.from(parts, ([name, values]) => [name, Float32Array.from(values)]));
    const made = await objective.predict(parts, batch);
    expect(relativeDifference(made, factorMatrix(form, shape, { ...single, ...integers }))).toBeLessThan(1e-6);
    const { gradients } = await objective.lossAndGradients(parts, batch);
    for (const [name, values] of parts) {
      const gradient = gradients.get(name)!;
      for (const i of [0, Math.floor(values.length / 2), values.length - 1]) {
        const at = async (step: number) => {
          const moved = new Map(parts).set(name, values.slice());
          moved.get(name)![i] += step;
          return objective.loss(moved, batch);
        };
        expect(gradient[i], `${name} ${i}`).toBeCloseTo(((await at(1e-5)) - (await at(-1e-5))) / 2e-5, 6);
      }
    }
  });
});

const blocks = ["tt", "tucker", "htt"].map((method) => ({ type: "tensors", method, keepRatio: 0.6 }) as const);
const embeddings = ["word2ketxs", "word2ket", "matrix"].map(
  (method) => ({ type: "embedding", method, keepRatio: 0.5 }) as const,
);
const morphemes = { type: "embedding", method: "morphte", rank: 4, options: { norm: true } } as const;
const plans: [string, RecipeInput["stages"]][] = [
  ...blocks.map((stage, i): [string, RecipeInput["stages"]] => [
    `${stage.method}, embedding ${embeddings[i].method}`,
    [stage, embeddings[i]],
  ]),
  ["embedding morphte", [morphemes]],
];

test.each(plans)("a model with %s is trained as it is run", async (_, stages) => {
  await startEngine("wasm");
  const checkpoint = Object.assign(await MemoryCheckpoint.golden("llama"), { files: morphemicTokens() });
  const { opened } = await compress(checkpoint, { stages, calibration: undefined });
  const { config } = await describeDecoder(opened);
  const parameters = modelParameters(config.spec, opened.tensors);
  const weights = await readWeights(opened, parameters);
  const tokens = randomTokens(4, 12);
  const batch = {
    tokens: { shape: [12], values: Int32Array.from(tokens) },
    label: { shape: [12], values: Int32Array.from(tokens.toReversed()) },
  };
  using objective = tracedObjective(traceModel(config.spec, parameters, 12));
  expect(relativeDifference(await objective.predict(weights, batch), await logits(opened, tokens))).toBeLessThan(1e-4);
  const { gradients } = await objective.lossAndGradients(weights, batch);
  for (const { name } of parameters)
    expect(
      gradients.get(name)!.some((g) => g !== 0),
      name,
    ).toBe(true);
});

describe("finetune", () => {
  let directory: string;
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "factors-"));
  });
  afterAll(() => rm(directory, { recursive: true, force: true }));

  const settings = {
    from: "weights" as const,
    ...{ steps: 2, batch: 1, window: 8, rate: 1e-2, warmup: 0 },
    tokens: async () => randomTokens(2, 64),
  };

  test.each([[embeddings[0]], [morphemes]])(
    "keeps factors, pairs and zeros in the form that they had, and the runtime runs them: $method",
    async (embedding) => {
      const checkpoint = Object.assign(await MemoryCheckpoint.golden("llama"), { files: morphemicTokens() });
      const { files, opened } = await compress(checkpoint, {
        calibration: undefined,
        stages: [
          { type: "tensors", method: "tt", keepRatio: 0.6, targets: ["**.up_proj.weight"] },
          {
            type: "lowRank",
            method: "svd",
            rank: 8,
            targets: ["**.q_proj.weight"],
            residual: { method: "magnitude", pattern: { type: "unstructured", sparsity: 0.9 } },
          },
          embedding,
        ],
      });
      const [source, out] = ["source", "out"].map((name) => join(directory, `${name} ${embedding.method}`));
      await mkdir(source);
      for (const [name, bytes] of files) await writeFile(join(source, name), bytes);
      await trainToDirectory(directoryFiles(source), out, { ...settings, method: "fixed-mask" });
      const trained = await openCheckpoint(directoryFiles(out));
      try {
        const forms = ({ artifact }: typeof trained) =>
          Object.fromEntries(
            Object.entries(artifact!.tensors!).map(([name, declared]) => [
              name,
              declared.encoding === "factors" ? declared : declared.encoding,
            ]),
          );
        expect(forms(trained)).toEqual(forms(opened));
        const zeros = async (model: typeof trained) =>
          (await model.readFloat32("model.layers.0.self_attn.q_proj.weight")).map((w) => (w === 0 ? 0 : 1));
        expect(await zeros(trained)).toEqual(await zeros(opened));
        const parameters = modelParameters((await describeDecoder(trained)).config.spec, trained.tensors);
        const [before, after] = [await readWeights(opened, parameters), await readWeights(trained, parameters)];
        for (const [name, values] of after) expect(values, name).not.toEqual(before.get(name));
        const difference = relativeDifference(await logits(trained), await logits(opened));
        expect(difference).toBeGreaterThan(1e-3);
        expect(difference).toBeLessThan(10);
      } finally {
        await trained.close();
      }
    },
  );

  test("an adapter beside a matrix in factors is refused", async () => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const { opened } = await compress(checkpoint, { stages: [blocks[0]], calibration: undefined });
    const { spec } = (await describeDecoder(opened)).config;
    const parameters = modelParameters(spec, opened.tensors);
    const weights = await readWeights(opened, parameters);
    using objective = tracedObjective(traceModel(spec, parameters, 8));
    const { method } = await adapterMethods.lora();
    const adapted = () =>
      adaptedObjective(objective, weights, modulesOf(spec, ["q_proj"]), method, { rank: 2, alpha: 4 }, new Random(1));
    expect(adapted).toThrow(/stored as factors/);
  });
});
