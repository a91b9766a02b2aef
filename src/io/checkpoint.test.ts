import { describe, expect, it } from "vitest";
import { FormatError, UsageError } from "../core/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { memorySinks } from "./byteSink.js";
import type { ModelFiles } from "./byteSource.js";
import { openCheckpoint } from "./checkpoint.js";
import { directoryFiles } from "./file.node.js";
import { memoryFiles } from "./memory.js";
import { writeSafetensors } from "./safetensorsWriter.js";

const tinyModel = new URL("../../models/tiny-6m", import.meta.url).pathname;
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));

/** Two shards: x (F32 [2, 2]) in the first, y (BF16 [3]) and z (I64 [1]) in the second. */
async function shardedFiles(): Promise<Map<string, Uint8Array>> {
  const files = new Map([["config.json", json({ model_type: "llama" })]]);
  const tensors = [
    { name: "x", dtype: "F32", shape: [2, 2], data: fromFloat32("F32", Float32Array.of(1, 2, 3, 4)) },
    { name: "y", dtype: "BF16", shape: [3], data: fromFloat32("BF16", Float32Array.of(0.5, -1, 2)) },
    { name: "z", dtype: "I64", shape: [1], data: new Uint8Array(8) },
  ] as const;
  await writeSafetensors(
    memorySinks(files),
    tensors.map(({ data, ...info }) => ({ ...info, bytes: () => [data] })),
    { maxShardBytes: 16 },
  );
  return files;
}

const index = (map: unknown) => json({ metadata: {}, weight_map: map });
const indexName = "model.safetensors.index.json";
const [firstShard, secondShard] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

describe("checkpoint", () => {
  it("opens tiny-6m", async () => {
    const checkpoint = await openCheckpoint(directoryFiles(tinyModel));
    expect(checkpoint.location).toBe(tinyModel);
    expect(checkpoint.config).toMatchObject({ model_type: "llama", hidden_size: 256 });
    // 9 per layer, the embedding and the final norm; the output projection is tied.
    expect(checkpoint.tensors.size).toBe(6 * 9 + 2);
    expect(checkpoint.tensors.get("model.layers.5.mlp.down_proj.weight")).toMatchObject({
      dtype: "BF16",
      shape: [256, 704],
    });
    const norm = await checkpoint.readFloat32("model.norm.weight");
    expect(norm.length).toBe(256);
    expect(norm.every((value) => value > 0 && value < 100)).toBe(true);
    const raw = await checkpoint.read("model.norm.weight", 4, 2);
    expect(Math.fround(norm[2])).toBe(new Float32Array(Uint8Array.of(0, 0, ...raw).buffer)[0]);
    expect(await checkpoint.readJson("tokenizer_config.json")).toMatchObject({ model_max_length: 1024 });
    expect(await checkpoint.readJson("none.json")).toBeUndefined();
    await checkpoint.close();
  });

  it("reads shards", async () => {
    const checkpoint = await openCheckpoint(memoryFiles("m", await shardedFiles()));
    expect([...(await checkpoint.readFloat32("x"))]).toEqual([1, 2, 3, 4]);
    expect([...(await checkpoint.readFloat32("y"))]).toEqual([0.5, -1, 2]);
    const into = new Uint8Array(2);
    expect(await checkpoint.read("y", 2, 2, into)).toBe(into);
    expect([...into]).toEqual([0x80, 0xbf]);
  });

  describe("an output head beside a tied embedding", () => {
    const rows = (...values: number[]) => fromFloat32("F32", Float32Array.from(values));
    const open = async (tie: boolean | undefined, embedding: Uint8Array, head: Uint8Array) => {
      const files = new Map([["config.json", json({ model_type: "llama", tie_word_embeddings: tie })]]);
      const shape = [2, 2];
      await writeSafetensors(memorySinks(files), [
        { name: "model.embed_tokens.weight", dtype: "F32", shape, bytes: () => [embedding] },
        { name: "lm_head.weight", dtype: "F32", shape, bytes: () => [head] },
      ]);
      return openCheckpoint(memoryFiles("m", files));
    };

    it("is used when its values differ, with a warning", async () => {
      const { config, warnings } = await open(true, rows(1, 2, 3, 4), rows(1, 2, 3, 5));
      expect(config).toMatchObject({ tie_word_embeddings: false });
      expect(warnings).toMatchObject([{ file: "m/config.json", field: "tie_word_embeddings" }]);
    });

    it("is the embedding when they are the same, in silence", async () => {
      const { config, warnings } = await open(true, rows(1, 2, 3, 4), rows(1, 2, 3, 4));
      expect(config).toMatchObject({ tie_word_embeddings: true });
      expect(warnings).toEqual([]);
    });

    it("is used in silence where the config does not speak of it", async () => {
      const { config, warnings } = await open(undefined, rows(1, 2, 3, 4), rows(1, 2, 3, 5));
      expect(config).toMatchObject({ tie_word_embeddings: false });
      expect(warnings).toEqual([]);
    });
  });

  it("knows quantised weights by their tensors", async () => {
    const files = new Map([["config.json", json({ model_type: "llama" })]]);
    const qweight = {
      name: "model.layers.0.mlp.up_proj.qweight",
      dtype: "I32",
      shape: [1],
      bytes: () => [new Uint8Array(4)],
    } as const;
    await writeSafetensors(memorySinks(files), [qweight]);
    await expect(openCheckpoint(memoryFiles("m", files))).rejects.toThrow(
      /up_proj.qweight: the weights are quantised by GPTQ or AWQ, and config.json has no quantization_config/,
    );
  });

  it("refuses what is quantised in a way that is not read, by its name", async () => {
    const quantized = async (quantization_config: unknown) => {
      const files = await shardedFiles();
      files.set("config.json", json({ model_type: "llama", quantization_config }));
      return openCheckpoint(memoryFiles("m", files));
    };
    const group = { group_0: { weights: { num_bits: 8 } } };
    for (const [record, problem] of [
      [
        { quant_method: "hqq", bits: 4 },
        /quant_method: the weights are quantised by "hqq", which is not read; expected one of gptq, awq/,
      ],
      [{ bits: 4 }, /quantised, which is not read/],
      [{ quant_method: { toString: 1 } }, /quantised by .*which is not read/],
      ["gptq", /quantization_config: "gptq"; expected an object/],
      [{ quant_method: "gptq", bits: 5 }, /quantization_config.bits/],
      [
        { quant_method: "gptq", bits: 4, checkpoint_format: "marlin" },
        /checkpoint_format: GPTQ in the layout "marlin"/,
      ],
      [{ quant_method: "gptq", bits: 4, is_marlin_format: true }, /layout "marlin"/],
      [
        { quant_method: "awq", bits: 4, version: "gemv" },
        /version: AWQ in the layout "gemv" is not read; expected "gemm"/,
      ],
      [{ quant_method: "compressed-tensors", format: "new", config_groups: group }, /layout "new" is not read/],
      [{ quant_method: "compressed-tensors", config_groups: { a: { format: "x" } } }, /layout "x" is not read/],
    ] as const) {
      await expect(quantized(record), JSON.stringify(record)).rejects.toThrow(problem);
    }
  });

  it("takes an empty record of compressed-tensors for none", async () => {
    const files = await shardedFiles();
    const quantization_config = { quant_method: "compressed-tensors", format: "dense", config_groups: {}, ignore: [] };
    files.set("config.json", json({ model_type: "llama", quantization_config }));
    expect((await openCheckpoint(memoryFiles("m", files))).config).toEqual({ model_type: "llama" });
  });

  it("says what is wrong with a read", async () => {
    const checkpoint = await openCheckpoint(memoryFiles("m", await shardedFiles()));
    await expect(checkpoint.read("w")).rejects.toThrow(/^m: w: no such tensor/);
    await expect(checkpoint.read("x", 9, 8)).rejects.toThrow(UsageError);
    await expect(checkpoint.read("x", -1, 2)).rejects.toThrow(UsageError);
    await expect(checkpoint.read("x", 20)).rejects.toThrow(UsageError);
    await expect(checkpoint.readFloat32("z")).rejects.toThrow(/z: I64 has no f32 form/);
  });

  it("takes what the index says where a name lies in two shards", async () => {
    const files = await shardedFiles();
    files.set(firstShard, files.get(secondShard)!);
    files.set(indexName, index({ y: secondShard }));
    const checkpoint = await openCheckpoint(memoryFiles("m", files));
    expect([...checkpoint.tensors.keys()]).toEqual(["y"]);
  });

  it.each([
    ["up", "../model.safetensors"],
    ["absolute", "/etc/model.safetensors"],
    ["backslash", "..\\model.safetensors"],
    ["folder", "a/model.safetensors"],
    ["hidden", ".model.safetensors"],
    ["other suffix", "model.bin"],
    ["NUL", "a\0.safetensors"],
    ["number", 7],
    ["null", null],
  ])("refuses a shard name that is not plain: %s", async (_, shard) => {
    const files = await shardedFiles();
    files.set(indexName, index({ x: shard }));
    const opened: string[] = [];
    const inner = memoryFiles("m", files);
    const spy: ModelFiles = {
      ...inner,
      open(name) {
        opened.push(name);
        return inner.open(name);
      },
    };
    await expect(openCheckpoint(spy)).rejects.toThrow(
      /m\/model.safetensors.index.json: weight_map.x: shard .*plain name/,
    );
    expect(opened).toEqual(["config.json", "rarefy.json", "model.safetensors", indexName]);
  });

  it.each([
    ["no weight_map", {}],
    ["a list", { weight_map: [] }],
    ["a list at the root", []],
  ])("refuses an index with %s", async (_, value) => {
    const files = (await shardedFiles()).set(indexName, json(value));
    await expect(openCheckpoint(memoryFiles("m", files))).rejects.toThrow(/weight_map: not a JSON object/);
  });

  it("names what is missing, and closes what it opened", async () => {
    const open = async (change: (files: Map<string, Uint8Array>) => void) => {
      const files = await shardedFiles();
      change(files);
      let [opens, closes] = [0, 0];
      const inner = memoryFiles("m", files);
      const counting: ModelFiles = {
        ...inner,
        async open(name) {
          const source = await inner.open(name);
          if (source === undefined) return undefined;
          opens++;
          return {
            name: source.name,
            byteLength: source.byteLength,
            read: source.read,
            async close() {
              closes++;
            },
          };
        },
      };
      const error: unknown = await openCheckpoint(counting).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(FormatError);
      expect(closes).toBe(opens);
      return (error as FormatError).message;
    };
    expect(await open((files) => files.delete("config.json"))).toMatch(/no config.json/);
    expect(await open((files) => files.delete(indexName))).toMatch(/neither model.safetensors nor/);
    expect(await open((files) => files.delete(secondShard))).toMatch(
      /m\/model-00002-of-00002.safetensors: y: .*missing/,
    );
    expect(await open((files) => files.set(indexName, index({ y: secondShard, x: secondShard })))).toMatch(
      /m\/model-00002-of-00002.safetensors: x: no such tensor/,
    );
    expect(await open((files) => files.set(firstShard, new Uint8Array(3)))).toMatch(/model-00001.*too few/);
    expect(await open((files) => files.set("config.json", new TextEncoder().encode("{")))).toMatch(
      /m\/config.json: not JSON/,
    );
  });
});
