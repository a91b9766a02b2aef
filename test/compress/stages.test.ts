import { beforeAll, describe, expect, test } from "vitest";
import { presets, type RecipeInput } from "../../src/compress/index.js";
import { compressionOf } from "../../src/io/index.js";
import { describeDecoder } from "../../src/model/index.js";
import { gradientSource } from "../../src/train/index.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { compress, logits, relativeDifference } from "./support.js";

type StageInput = RecipeInput["stages"][number];

describe.each(["llama", "qwen2", "qwen3"])("stages on %s", (architecture) => {
  let checkpoint: MemoryCheckpoint;
  let dense: Float32Array;
  beforeAll(async () => {
    checkpoint = await MemoryCheckpoint.golden(architecture);
    dense = await logits(checkpoint);
  });

  test.each<[string, StageInput[]]>([
    [
      "scale",
      [
        {
          type: "scale",
          method: "smoothquant",
          targets: ["**.q_proj.weight", "**.up_proj.weight", "**.down_proj.weight"],
        },
      ],
    ],
    [
      "low rank at full rank",
      [
        {
          type: "lowRank",
          method: "svdllm",
          rank: 32,
          targets: ["**.k_proj.weight", "**.v_proj.weight"],
          residual: { method: "magnitude", pattern: 0 },
        },
      ],
    ],
    ["as many heads as there are", [{ type: "poolHeads", kvHeads: 2 }]],
    ["nothing pruned", [{ type: "prune", method: "wanda", pattern: 0 }]],
  ])("%s: the model computes the same", async (_name, stages) => {
    const { opened } = await compress(checkpoint, { stages });
    expect(relativeDifference(await logits(opened), dense)).toBeLessThan(1e-4);
  });

  test.each(["neurons", "heads"] as const)("removed %s: smaller matrices compute what zeros do", async (type) => {
    const stage = { type: "prune", method: "sparsegpt", pattern: { type, sparsity: 0.5 }, multipleOf: 4 } as const;
    const [masked, removed] = [
      await compress(checkpoint, { stages: [{ ...stage, shrink: false }] }),
      await compress(checkpoint, { stages: [stage] }),
    ];
    const { config } = await describeDecoder(removed.opened);
    if (type === "neurons") expect(config).toMatchObject({ intermediateSize: 80, queryHeads: 4, kvHeads: 2 });
    else expect(config).toMatchObject({ intermediateSize: 160, queryHeads: 2, kvHeads: 1, headDim: 16 });
    expect(removed.artifact.blocks).toBeUndefined();
    const outputs = await logits(removed.opened);
    expect(relativeDifference(outputs, await logits(masked.opened))).toBeLessThan(1e-4);
    expect(relativeDifference(outputs, dense)).toBeGreaterThan(1e-3);
  });

  test("one threshold for all blocks: blocks of different sizes, which load", async () => {
    const values = checkpoint.values("model.layers.0.mlp.up_proj.weight").map((w) => w * 3);
    const uneven = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
    uneven.set("model.layers.0.mlp.up_proj.weight", [160, 64], values);
    const pattern = { type: "neurons", sparsity: 0.5, scope: "global" } as const;
    const stages = [{ type: "prune", method: "magnitude", pattern, multipleOf: 4 } as const];
    const { opened, artifact } = await compress(uneven, { stages });
    const sizes = artifact.blocks!.map(({ intermediateSize }) => intermediateSize);
    expect(sizes[0]).toBeGreaterThan(sizes[1] + 20);
    expect(Math.abs(sizes[0] + sizes[1] - 160)).toBeLessThanOrEqual(8);
    const masked = await compress(uneven, { stages: [{ ...stages[0], shrink: false }] });
    expect(relativeDifference(await logits(opened), await logits(masked.opened))).toBeLessThan(1e-4);
  });

  test("heads pooled to one: shapes and config follow", async () => {
    const { opened } = await compress(checkpoint, { stages: [{ type: "poolHeads", kvHeads: 1 }] });
    expect((await describeDecoder(opened)).config.kvHeads).toBe(1);
    const name = "model.layers.1.self_attn.k_proj.weight";
    const [before, after] = [checkpoint.values(name), await opened.readFloat32(name)];
    expect(after).toHaveLength(16 * 64);
    expect(after[70]).toBeCloseTo((before[70] + before[70 + 16 * 64]) / 2, 6);
    expect((await logits(opened)).every(Number.isFinite)).toBe(true);
  });
});

describe("presets", () => {
  test.each(Object.keys(presets))("%s makes a model that loads", async (name) => {
    const checkpoint = await MemoryCheckpoint.golden("llama");
    const stages = structuredClone(presets[name].stages) as StageInput[];
    // The model has few neurons and short rows.
    for (const stage of stages) if (stage.type === "prune") stage.multipleOf = 4;
    const { opened, artifact } = await compress(checkpoint, { stages, gradients: gradientSource() });
    expect((await logits(opened)).every(Number.isFinite)).toBe(true);
    const matrices = compressionOf(artifact)!.layers.flatMap((layer) => Object.values(layer.matrices));
    expect(matrices).toHaveLength(14);
    const stored = matrices.reduce((sum, { nonZeros }) => sum + nonZeros, 0) / compressionOf(artifact)!.sourceWeights;
    if (stages.some(({ type }) => type === "prune" || type === "lowRank")) expect(stored).toBeLessThan(0.85);
    if (stages.some(({ type }) => type === "quantize")) expect(matrices[0].bits).toBeGreaterThanOrEqual(4);
  });
});

describe("stages", () => {
  let checkpoint: MemoryCheckpoint;
  beforeAll(async () => {
    checkpoint = await MemoryCheckpoint.golden("llama");
  });

  test("prune then quantise: zeros stay, what stays lies on grids that the file keeps", async () => {
    const { opened, artifact } = await compress(checkpoint, {
      stages: [
        { type: "prune", method: "sparsegpt", pattern: "2:4" },
        { type: "quantize", method: "gptq", options: { bits: 4, scaleType: "bf16" } },
      ],
    });
    const name = "model.layers.1.mlp.up_proj.weight";
    const weight = await opened.readFloat32(name);
    for (let i = 0; i < weight.length; i += 4) {
      expect(weight.subarray(i, i + 4).filter((w) => w === 0).length).toBeGreaterThanOrEqual(2);
    }
    expect(opened.tensors.get(name)).toMatchObject({ grid: { bits: 4, groupSize: 32, symmetric: true } });
    const scales = await opened.readScales(name, 3, 1);
    for (let c = 0; c < 64; c++) {
      const code = weight[3 * 64 + c] / scales[Math.floor(c / 32)];
      expect(Math.abs(code - Math.round(code))).toBeLessThan(1e-5);
    }
    expect(artifact.weights).toBe("q4");
    const report = compressionOf(artifact)!.layers[1].matrices.up_proj;
    expect(report).toMatchObject({ rows: 160, cols: 64, bits: 4, groupSize: 32 });
    expect(report.sparsity).toBeGreaterThanOrEqual(0.5);
    expect(report.relativeError).toBeGreaterThan(0.1);
  });

  test("SparseGPT that rounds as it prunes: zeros and codes in one file", async () => {
    const options = { quantize: { bits: 4, groupSize: 32, scaleType: "bf16" } };
    const { opened, artifact } = await compress(checkpoint, {
      stages: [{ type: "prune", method: "sparsegpt", pattern: 0.5, options }],
    });
    const info = opened.tensors.get("model.layers.0.mlp.down_proj.weight")!;
    expect(info).toMatchObject({ encoding: "bitmask", grid: { bits: 4 } });
    expect(compressionOf(artifact)!.layers[0].matrices.down_proj).toMatchObject({ bits: 4 });
    expect(compressionOf(artifact)!.layers[0].matrices.down_proj.sparsity).toBeGreaterThanOrEqual(0.5);
  });

  test("LLM.int8(): matrices with outlier channels keep their values, others their codes", async () => {
    const outlying = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
    const norm = "model.layers.0.input_layernorm.weight";
    outlying.set(
      norm,
      [64],
      outlying.values(norm).map((w, c) => (c === 7 ? w * 60 : w)),
    );
    const { opened } = await compress(outlying, { stages: [{ type: "quantize", method: "llmint8" }] });
    expect(opened.tensors.get("model.layers.0.self_attn.q_proj.weight")).not.toHaveProperty("grid");
    expect(opened.tensors.get("model.layers.1.self_attn.q_proj.weight")).toMatchObject({
      grid: { bits: 8, groupSize: 64 },
    });
    const name = "model.layers.0.self_attn.q_proj.weight";
    const [before, after] = [outlying.values(name), await opened.readFloat32(name)];
    expect(after[7 + 64 * 3]).toBe(before[7 + 64 * 3]);
    expect(after[8 + 64 * 3]).not.toBe(before[8 + 64 * 3]);
  });

  test("AWQ folds its factors: the stored model is what was rounded", async () => {
    const errorOf = async (method: string) => {
      const stages = [{ type: "quantize", method, options: { bits: 3 } } as const];
      const { opened } = await compress(checkpoint, { stages });
      return relativeDifference(await logits(opened), await logits(checkpoint));
    };
    const eight = await compress(checkpoint, { stages: [{ type: "quantize", method: "awq", options: { bits: 8 } }] });
    expect(relativeDifference(await logits(eight.opened), await logits(checkpoint))).toBeLessThan(0.05);
    expect(eight.artifact.weights).toBeUndefined();
    expect(await errorOf("awq")).toBeLessThan(1.2 * (await errorOf("rtn")));
  });

  test("low rank with a sparse rest: factors and rest are stored, and the model runs them", async () => {
    const residual = { method: "magnitude", pattern: 0.75 } as const;
    const stage = { type: "lowRank" as const, method: "svd", rank: 8, targets: ["**.up_proj.weight"] };
    const [plain, rest] = [
      await compress(checkpoint, { stages: [stage] }),
      await compress(checkpoint, { stages: [{ ...stage, residual }] }),
    ];
    const name = "model.layers.0.mlp.up_proj";
    expect(plain.opened.tensors.has(`${name}.weight`)).toBe(false);
    expect(plain.opened.tensors.get(`${name}.low_rank.left`)!.shape).toEqual([160, 8]);
    expect(compressionOf(plain.artifact)!.layers[0].matrices.up_proj).toMatchObject({ rank: 8, nonZeros: 8 * 224 });
    expect(compressionOf(rest.artifact)!.layers[0].matrices.up_proj).toMatchObject({ nonZeros: 8 * 224 + 2560 });
    const error = async (opened: typeof rest.opened) =>
      relativeDifference(await logits(opened), await logits(checkpoint));
    expect(await error(rest.opened)).toBeLessThan(await error(plain.opened));
  });

  test("one threshold for all entries: counts differ between matrices and add up", async () => {
    const stages = [
      {
        type: "prune",
        method: "magnitude",
        pattern: { type: "unstructured", sparsity: 0.5, scope: "global" },
      } as const,
    ];
    const { artifact } = await compress(checkpoint, { stages, calibration: undefined });
    const matrices = compressionOf(artifact)!.layers.flatMap((layer) => Object.values(layer.matrices));
    const total = matrices.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
    const kept = matrices.reduce((sum, { nonZeros }) => sum + nonZeros, 0);
    expect(kept).toBe(total - Math.floor(total / 2));
    expect(new Set(matrices.map(({ sparsity }) => sparsity.toFixed(4))).size).toBeGreaterThan(3);
    expect(matrices[0].relativeError).toBeUndefined();
  });

  test("factors folded into bf16 weights are stored in f32: nothing is lost", async () => {
    const half = new MemoryCheckpoint(checkpoint.config, new Map());
    for (const { name, shape } of checkpoint.tensors.values()) half.set(name, shape, checkpoint.values(name), "BF16");
    const { opened } = await compress(half, {
      stages: [{ type: "scale", method: "smoothquant", targets: ["**.q_proj.weight", "**.gate_proj.weight"] }],
    });
    expect(relativeDifference(await logits(opened), await logits(half))).toBeLessThan(1e-5);
    const dtypeOf = (name: string) => opened.tensors.get(`model.layers.1.${name}.weight`)!.dtype;
    expect(["mlp.up_proj", "input_layernorm", "mlp.down_proj"].map(dtypeOf)).toEqual(["F32", "F32", "BF16"]);
  });

  test("dropped layers are gone, and others take their place", async () => {
    const dull = new MemoryCheckpoint(checkpoint.config, new Map(checkpoint.tensors));
    // A block that adds nothing points exactly the way of its input.
    for (const name of ["self_attn.o_proj", "mlp.down_proj"]) {
      const tensor = `model.layers.0.${name}.weight`;
      dull.set(tensor, dull.tensors.get(tensor)!.shape, dull.values(tensor).fill(0));
    }
    const { opened, artifact } = await compress(dull, { stages: [{ type: "dropLayers", count: 1 }] });
    expect((await describeDecoder(opened)).config.layers).toBe(1);
    expect(compressionOf(artifact)!.layers.map(({ source }) => source)).toEqual([1]);
    expect(relativeDifference(await logits(opened), await logits(dull))).toBeLessThan(1e-5);
    const last = await compress(dull, {
      stages: [{ type: "dropLayers", count: 1, method: "last" }],
      calibration: undefined,
    });
    expect(compressionOf(last.artifact)!.layers.map(({ source }) => source)).toEqual([0]);
  });

  test("a matrix that is sparse already stays so", async () => {
    const pruned = await compress(checkpoint, { stages: [{ type: "prune", method: "magnitude", pattern: 0.6 }] });
    const { artifact } = await compress(pruned.opened, { stages: [{ type: "quantize", method: "gptq" }] });
    for (const { sparsity } of Object.values(compressionOf(artifact)!.layers[0].matrices)) {
      expect(sparsity).toBeGreaterThanOrEqual(0.6 - 1e-3);
    }
  });
});
