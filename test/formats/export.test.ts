import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parseModelConfig } from "../../src/arch/index.js";
import { FormatError, Random, UsageError } from "../../src/core/index.js";
import { memorySinks } from "../../src/io/byteSink.js";
import { compressedTensors } from "../../src/io/compressedTensors/write.js";
import { rowChunks } from "../../src/io/export/rowChunks.js";
import { metadataOfConfig } from "../../src/io/gguf/fromConfig.js";
import {
  type Checkpoint,
  memoryFiles,
  openCheckpoint,
  readSafetensorsHeader,
  writeSafetensors,
} from "../../src/io/index.js";
import {
  buildModelDirectory,
  directoryFiles,
  type ExportOptions,
  exportModel,
  localGgufFiles,
  openFile,
} from "../../src/io/index.node.js";
import { plainWeights } from "../../src/io/weights.js";
import { fromFloat32, toFloat32 } from "../../src/tensor/index.js";

const tinyModel = new URL("../../models/tiny-6m", import.meta.url).pathname;
const root = await mkdtemp(join(tmpdir(), "rarefy-export-"));
afterAll(() => rm(root, { recursive: true }));
const path = (name: string) => join(root, name);
const text = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const isProjection = (name: string) => /_proj\.weight$/.test(name);

/** tiny-6m with every weight of the blocks' projections changed by `prune`. */
async function pruned(name: string, prune: (value: number, index: number) => number): Promise<void> {
  const source = directoryFiles(tinyModel);
  const checkpoint = await openCheckpoint(source);
  await buildModelDirectory(path(name), [tinyModel], async (builder) => {
    await builder.takeOver(source, (file) => file !== "model.safetensors");
    await builder.add("rarefy.json", text({ rarefy: 1 }));
    const tensors = [...checkpoint.tensors.values()].map((info) => ({
      ...info,
      async *bytes() {
        const values = await checkpoint.readFloat32(info.name);
        yield fromFloat32("BF16", isProjection(info.name) ? values.map(prune) : values);
      },
    }));
    await writeSafetensors(builder.sinks, tensors);
  });
  await checkpoint.close();
}

beforeAll(async () => {
  await pruned("half", (value) => (Math.abs(value) < 0.03 ? 0 : value));
  await pruned("two", (value, i) => (i % 4 === 1 || i % 4 === 2 ? 0 : value));
});

it("what llama.cpp has no name for is refused as GGUF, with what to do instead", async () => {
  const checkpoint = await openCheckpoint(directoryFiles(new URL("../golden/arch/opt", import.meta.url).pathname));
  const config = parseModelConfig(checkpoint.config, "config.json");
  await checkpoint.close();
  expect(() => metadataOfConfig(config)).toThrow("model type opt; export it as safetensors");
});

const run = (from: string, to: string, options: ExportOptions) =>
  exportModel(directoryFiles(from === "tiny" ? tinyModel : path(from)), path(to), options);

async function withCheckpoint<T>(name: string, use: (checkpoint: Checkpoint) => Promise<T>): Promise<T> {
  const checkpoint = await openCheckpoint(directoryFiles(path(name)));
  try {
    return await use(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

async function expectSameTensors(a: string, b: string): Promise<void> {
  await withCheckpoint(a, (first) =>
    withCheckpoint(b, async (second) => {
      expect(new Set(second.tensors.keys())).toEqual(new Set(first.tensors.keys()));
      for (const name of first.tensors.keys()) {
        const [a, b] = [await first.readFloat32(name), await second.readFloat32(name)];
        // Element by element, `toEqual` takes minutes.
        expect(a.length === b.length && a.every((value, i) => value === b[i]), name).toBe(true);
      }
    }),
  );
}

describe("export", () => {
  it.each([
    ["half", "sparse-bitmask", "unstructured"],
    ["two", "sparse-24-bitmask", "2:4"],
  ])("%s becomes %s and reads back", async (model, format, structure) => {
    const out = `${model}-ct`;
    const result = await run(model, out, { format: "compressed-tensors" });
    expect(result).toMatchObject({ sparseFormat: format, verification: { tensors: 56, unchanged: 56 } });
    const config = JSON.parse(await readFile(join(path(out), "config.json"), "utf8"));
    expect(config.quantization_config).toMatchObject({
      quant_method: "compressed-tensors",
      sparsity_config: { format, sparsity_structure: structure, targets: ["Linear"], ignore: ["lm_head"] },
    });
    expect(config.quantization_config.sparsity_config.global_sparsity).toBeCloseTo(result.sparsity!, 10);
    await expectSameTensors(model, out);
    await withCheckpoint(out, async ({ config, tensors }) => {
      expect(() => parseModelConfig(config, "config.json")).not.toThrow();
      const info = tensors.get("model.layers.0.mlp.up_proj.weight")!;
      expect(info).toMatchObject({ encoding: format, shape: [704, 256], dtype: "BF16" });
      expect(info.storedBytes).toBeLessThan(704 * 256 * 2 * (model === "two" ? 0.57 : 0.8));
    });
    const source = (await openFile(join(path(out), "model.safetensors")))!;
    const { tensors } = await readSafetensorsHeader(source);
    await source.close();
    const stem = "model.layers.3.self_attn.k_proj";
    expect(tensors.get(`${stem}.bitmask`)).toMatchObject({ dtype: "U8", shape: [128, 32] });
    if (model === "two") {
      expect(tensors.get(`${stem}.compressed`)).toMatchObject({ dtype: "BF16", shape: [128, 128] });
      expect(tensors.get(`${stem}.shape`)).toMatchObject({ dtype: "I64", shape: [2, 1] });
      expect(tensors.has(`${stem}.row_offsets`)).toBe(false);
    } else {
      expect(tensors.get(`${stem}.shape`)).toMatchObject({ dtype: "I64", shape: [2] });
      expect(tensors.get(`${stem}.row_offsets`)).toMatchObject({ dtype: "I64", shape: [128] });
    }
  });

  it("writes dense safetensors with zeros in another type", async () => {
    const result = await run("half", "half-f16", { format: "safetensors", type: "f16" });
    expect(result.verification.largestRelativeError).toBeLessThan(1e-6);
    const config = JSON.parse(await readFile(join(path("half-f16"), "config.json"), "utf8"));
    expect(config.dtype).toBe("float16");
    await withCheckpoint("half-f16", async ({ tensors }) => {
      expect([...tensors.values()].every(({ dtype, encoding }) => dtype === "F16" && encoding === undefined)).toBe(
        true,
      );
    });
  });

  it("writes stacks of experts whole, every matrix of them", async () => {
    const golden = new URL("../golden/arch/gpt_oss", import.meta.url).pathname;
    await exportModel(directoryFiles(golden), path("stacks"), { format: "safetensors", type: "f32" });
    const before = await openCheckpoint(directoryFiles(golden));
    await withCheckpoint("stacks", async (after) => {
      const name = "model.layers.0.mlp.experts.gate_up_proj";
      expect(after.tensors.get(name)!.shape).toHaveLength(3);
      expect(after.tensors.get(name)!.shape).toEqual(before.tensors.get(name)!.shape);
      const [written, read] = [await after.readFloat32(name), await before.readFloat32(name)];
      expect(written.length === read.length && written.every((value, i) => value === read[i])).toBe(true);
    });
    await before.close();
  });

  it("reads stacks by rows, a part at a time, as files with blocks in rows are written", async () => {
    // Three matrices, together more than are held at a time.
    const [matrices, rows, cols] = [3, 1000, 700];
    const value = (at: number) => (at * 7) % 1000;
    const weights = {
      ...{ name: "stack", shape: [matrices, rows, cols], dtype: "F32" as const },
      readRows: async (start: number, count: number) =>
        Float32Array.from({ length: count * cols }, (_, i) => value(start * cols + i)),
    };
    let next = 0;
    let parts = 0;
    for await (const { start, count, values } of rowChunks(weights)) {
      expect([start, values.length]).toEqual([next, count * cols]);
      expect(values[0]).toBe(value(start * cols));
      next += count;
      parts++;
    }
    expect(next).toBe(matrices * rows);
    expect(parts).toBeGreaterThan(1);
  });

  it("goes through GGUF and back", async () => {
    await run("half", "half.gguf", { format: "gguf", type: "bf16" });
    const files = await localGgufFiles(path("half.gguf"));
    const result = await exportModel(files, path("half-again"), { format: "safetensors", type: "bf16" });
    expect(result.verification).toMatchObject({ tensors: 56, unchanged: 56 });
    await expectSameTensors("half", "half-again");
    await expect(exportModel(files, path("half.gguf"), { format: "gguf" })).rejects.toThrow(/is the input/);
  });

  it("leaves nothing behind when the check fails", async () => {
    const check = async () => {
      throw new Error("no");
    };
    await expect(run("tiny", "gone.gguf", { format: "gguf", check })).rejects.toThrow("no");
    await expect(run("tiny", "gone", { format: "safetensors", check })).rejects.toThrow("no");
    expect((await readdir(root)).filter((name) => name.includes("gone"))).toEqual([]);
  });

  it("refuses what a format cannot hold", async () => {
    await expect(run("tiny", "x", { format: "compressed-tensors" })).rejects.toThrow(/enough zeros/);
    await expect(run("tiny", "x", { format: "safetensors", type: "q8_0" })).rejects.toThrow(UsageError);
    await expect(run("tiny", "x.bin", { format: "gguf" })).rejects.toThrow(/ends in .gguf/);
    const blocks = Array.from({ length: 6 }, (_, b) => ({
      ...{ queryHeads: 8, kvHeads: 4, intermediateSize: b === 2 ? 352 : 704 },
    }));
    await pruned("uneven", (value) => value);
    await writeFile(join(path("uneven"), "rarefy.json"), JSON.stringify({ rarefy: 1, blocks }));
    await expect(run("uneven", "x", { format: "safetensors" })).rejects.toThrow(/differ in size/);
  });

  it("multiplies low-rank pairs out and adds the residual", async () => {
    const files = new Map([["config.json", text({})]]);
    const values = {
      "a.low_rank.left": [1, 2, 3, 4],
      "a.low_rank.right": [1, 0, 2, 0, 1, 3],
      "a.weight": [0, 0, 5, 0, 0, 0],
    };
    const shapes = { "a.low_rank.left": [2, 2], "a.low_rank.right": [2, 3], "a.weight": [2, 3] };
    await writeSafetensors(
      memorySinks(files),
      Object.entries(values).map(([name, list]) => ({
        name,
        dtype: "F32",
        shape: shapes[name as keyof typeof shapes],
        bytes: () => [fromFloat32("F32", Float32Array.from(list))],
      })),
    );
    const [weights, ...others] = await plainWeights(await openCheckpoint(memoryFiles("m", files)));
    expect(others).toEqual([]);
    expect(weights).toMatchObject({ name: "a.weight", shape: [2, 3] });
    expect([...(await weights.readRows(0, 2))]).toEqual([1, 2, 13, 3, 4, 18]);
    expect([...(await weights.readRows(1, 1))]).toEqual([3, 4, 18]);
  });
});

describe("legacy compressed-tensors", () => {
  const values = Float32Array.of(0, 5, 0, 7, 1, 0, 0, 2, 0, 0, 3, 4, 6, 0, 0, 0);

  /** The files of a checkpoint with one matrix of 2 × 8, as the writer makes them. */
  async function filesOf(): Promise<Map<string, Uint8Array>> {
    const weights = {
      name: "model.layers.0.mlp.up_proj.weight",
      shape: [2, 8],
      dtype: "F32" as const,
      readRows: async (start: number, count: number) => values.slice(start * 8, (start + count) * 8),
    };
    const made = await compressedTensors([weights], new Set([weights.name]), undefined);
    const files = new Map([["config.json", text({ quantization_config: made.quantizationConfig })]]);
    await writeSafetensors(memorySinks(files), made.tensors);
    return files;
  }

  it("holds the bytes that the layout asks for", async () => {
    const files = await filesOf();
    const config = JSON.parse(new TextDecoder().decode(files.get("config.json")!));
    // 2:4 fits: every four have at most two.
    expect(config.quantization_config.sparsity_config.format).toBe("sparse-24-bitmask");
    files.set("config.json", text({}));
    const raw = await openCheckpoint(memoryFiles("m", files));
    const stem = "model.layers.0.mlp.up_proj";
    expect([...(await raw.read(`${stem}.bitmask`))]).toEqual([154, 0b0011_1100]);
    expect([...toFloat32("F32", await raw.read(`${stem}.compressed`))]).toEqual([5, 7, 1, 2, 3, 4, 6, 0]);
    expect([...(await raw.read(`${stem}.shape`))]).toEqual([2, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0]);
  });

  it("is read from where older releases put the record, and under their names", async () => {
    const files = await filesOf();
    const { quantization_config: record } = JSON.parse(new TextDecoder().decode(files.get("config.json")!));
    files.set("config.json", text({ compression_config: record, model_type: "llama" }));
    const checkpoint = await openCheckpoint(memoryFiles("m", files));
    expect(checkpoint.config).toEqual({ model_type: "llama" });
    expect(await checkpoint.readFloat32("model.layers.0.mlp.up_proj.weight")).toEqual(values);
    const names = new TextDecoder("latin1").decode(files.get("model.safetensors")!.slice(8));
    expect(names).toContain("up_proj.compressed");
  });

  it("refuses unknown sparse formats", async () => {
    const files = await filesOf();
    files.set("config.json", text({ quantization_config: { sparsity_config: { format: "marlin-24" } } }));
    await expect(openCheckpoint(memoryFiles("m", files))).rejects.toThrow(/sparsity_config.format: "marlin-24"/);
  });

  it("damage ends in a FormatError or values of the right number", async () => {
    const random = new Random(9);
    const good = await filesOf();
    const weights = good.get("model.safetensors")!;
    const header = Number(new DataView(weights.buffer, weights.byteOffset).getBigUint64(0, true)) + 8;
    let refused = 0;
    for (let i = 0; i < 3000; i++) {
      const bytes = weights.slice();
      const at = i % 3 === 0 ? 8 + random.integer(header - 8) : header + random.integer(bytes.length - header);
      bytes[at] = random.integer(256);
      try {
        const checkpoint = await openCheckpoint(memoryFiles("m", new Map([...good, ["model.safetensors", bytes]])));
        for (const name of checkpoint.tensors.keys()) await checkpoint.read(name);
      } catch (error) {
        expect(error).toBeInstanceOf(FormatError);
        refused++;
      }
    }
    expect(refused).toBeGreaterThan(500);
  });
});
