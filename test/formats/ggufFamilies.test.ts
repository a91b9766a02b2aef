import { expect, test } from "vitest";
import { families, parseModelConfig } from "../../src/arch/index.js";
import { unusedFields } from "../../src/arch/internal.js";
import { createFile, memorySinks } from "../../src/io/byteSink.js";
import { openCheckpoint } from "../../src/io/checkpoint.js";
import { ggufFiles } from "../../src/io/gguf/files.js";
import { readGgufParts } from "../../src/io/gguf/parts.js";
import { writeGguf } from "../../src/io/gguf/writeGguf.js";
import { memorySource } from "../../src/io/memory.js";
import { preTokenizers } from "../../src/io/tokenizer/preTokenizers.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { toFloat32 } from "../../src/tensor/index.js";
import { architectureGolden, architectureNames, logitsOf, negativeLogLikelihood } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";

const written = await Promise.all(
  architectureNames.map(async (name) => {
    const { config } = await MemoryCheckpoint.golden(name);
    return families[String(config.model_type)].gguf === undefined ? undefined : name;
  }),
).then((names) => names.filter((name) => name !== undefined));

test("which families are written and read as GGUF", () => {
  expect(written).toEqual([
    "llama",
    "llama3-rope",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "smollm3",
    "phi3",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
    "olmoe",
    "qwen3_moe",
  ]);
});

/** A golden checkpoint as a GGUF file. */
async function ggufOf(name: string, type: "f32" | "f16", changed: object = {}) {
  const checkpoint = await MemoryCheckpoint.golden(name);
  Object.assign(checkpoint.config, changed);
  const config = parseModelConfig(checkpoint.config, "config.json");
  const vocab = Object.fromEntries(Array.from({ length: config.vocabSize }, (_, id) => [`t${id}`, id]));
  const model = { type: "BPE", vocab, merges: [] };
  const tokenizer = { normalizer: null, pre_tokenizer: preTokenizers[0].rules, model, added_tokens: [] };
  const source = Object.assign(checkpoint, {
    readJson: async (file: string) => (file === "tokenizer.json" ? tokenizer : undefined),
  });
  const files = new Map<string, Uint8Array>();
  await createFile(memorySinks(files), "m.gguf", (sink) => writeGguf(sink, source, config, { type, name }));
  return { checkpoint, config, bytes: files.get("m.gguf")! };
}

// How llama.cpp's converter leaves tensors, which a way there and back does not show.
test.each([
  [
    "gemma2",
    "blk.1.post_ffw_norm.weight",
    "model.layers.1.post_feedforward_layernorm.weight",
    (v: Float32Array) => v.map((x) => x + 1),
  ],
  [
    "gpt2",
    "blk.0.ffn_up.weight",
    "transformer.h.0.mlp.c_fc.weight",
    (v: Float32Array) => v.map((_, i) => v[(i % 64) * 256 + Math.floor(i / 64)]),
  ],
  // Rows of q of all heads, then of k, then of v; the checkpoint has q, k and v of 4 heads of 16 in turns.
  [
    "gpt_neox",
    "blk.1.attn_qkv.bias",
    "gpt_neox.layers.1.attention.query_key_value.bias",
    (v: Float32Array) => v.map((_, i) => v[(Math.floor(i / 16) % 4) * 48 + Math.floor(i / 64) * 16 + (i % 16)]),
  ],
  [
    "gpt_neox",
    "blk.0.attn_qkv.weight",
    "gpt_neox.layers.0.attention.query_key_value.weight",
    (v: Float32Array) =>
      v.map((_, i) => {
        const r = Math.floor(i / 64);
        return v[((Math.floor(r / 16) % 4) * 48 + Math.floor(r / 64) * 16 + (r % 16)) * 64 + (i % 64)];
      }),
  ],
])("%s: %s lies as in files of llama.cpp", async (name, inFile, inCheckpoint, expected) => {
  const { checkpoint, bytes } = await ggufOf(name, "f32");
  const { tensors } = await readGgufParts(memorySource("m.gguf", bytes), async () => undefined);
  const { source, byteOffset, byteLength } = tensors.get(inFile)!;
  const stored = toFloat32("F32", await source.read(byteOffset, byteLength));
  const wanted = expected(checkpoint.values(inCheckpoint));
  expect(stored.length).toBe(wanted.length);
  expect(stored.findIndex((value, i) => value !== wanted[i])).toBe(-1);
});

test("maps of experts lie one behind the other in one tensor, and what chooses among them is f32", async () => {
  const { checkpoint, bytes } = await ggufOf("mixtral", "f16");
  const { tensors } = await readGgufParts(memorySource("m.gguf", bytes), async () => undefined);
  const experts = [...checkpoint.tensors.keys()].filter((name) => /layers\.1\..*\.w3\.weight$/.test(name)).sort();
  const stack = tensors.get("blk.1.ffn_up_exps.weight")!;
  expect(stack.shape).toEqual([experts.length, ...checkpoint.tensors.get(experts[0])!.shape]);
  const stored = toFloat32("F16", await stack.source.read(stack.byteOffset, stack.byteLength));
  const wanted = experts.flatMap((name) => [...checkpoint.values(name)]);
  expect(stored.findIndex((value, i) => Math.abs(value - wanted[i]) > 2 ** -11 * Math.abs(wanted[i]) + 2 ** -25)).toBe(
    -1,
  );
  expect(tensors.get("blk.1.ffn_gate_inp.weight")!.type.name).toBe("F32");
});

test("mixtures that llama.cpp computes otherwise are refused with the reason", async () => {
  for (const [name, config, problem] of [
    ["qwen3_moe", { norm_topk_prob: false }, /experts are left as they are/],
    ["olmoe", { norm_topk_prob: true }, /made to add up to 1/],
    ["olmoe", { clip_qkv: 8 }, /clipped/],
    ["mixtral", { router_type: "relu" }, /chosen by relu/],
    ["deepseek_v3", {}, /model type deepseek_v3/],
  ] as const) {
    await expect(ggufOf(name, "f32", config), name).rejects.toThrow(problem);
  }
});

const factors = (first: number) => Array.from({ length: 8 }, (_, i) => first + i / 4);
test.each([
  ["llama", { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64, rope_theta: 10000 }],
  [
    "phi3",
    {
      rope_type: "longrope",
      short_factor: factors(1),
      long_factor: factors(2),
      original_max_position_embeddings: 64,
      rope_theta: 10000,
    },
  ],
])("%s: a rotary embedding that is scaled by %j comes back", async (name, rope_parameters) => {
  const { config, bytes } = await ggufOf(name, "f32", { rope_parameters });
  expect(config.rope.type).toBe(rope_parameters.rope_type);
  const back = await openCheckpoint(await ggufFiles("m.gguf", async () => memorySource("m.gguf", bytes)));
  const read = parseModelConfig(back.config, "config.json").rope;
  const asF32 = (rope: object) =>
    JSON.parse(JSON.stringify(rope), (_, value) => (typeof value === "number" ? Math.fround(value) : value));
  expect(asF32(read)).toEqual(asF32(config.rope));
  expect(unusedFields(back.config as Record<string, unknown>, "config.json")).toEqual([]);
});

test("YaRN with other betas than llama.cpp's is refused", async () => {
  const rope_parameters = {
    rope_type: "yarn",
    factor: 4,
    original_max_position_embeddings: 64,
    rope_theta: 1e4,
    beta_fast: 16,
  };
  await expect(ggufOf("llama", "f32", { rope_parameters })).rejects.toThrow(/YaRN scaling has other betas/);
});

// A file that names a tensor, a row or a key otherwise than it is read gives another model.
test.each(written)("%s: what runs from a GGUF file gives the golden figures", async (name) => {
  const { ids, nll } = architectureGolden(name);
  using backend = await openBackend("reference");
  for (const [type, tolerance] of [
    ["f32", 2e-3],
    ["f16", 2e-2],
  ] as const) {
    const { config, bytes } = await ggufOf(name, type);
    const back = await openCheckpoint(await ggufFiles("m.gguf", async () => memorySource("m.gguf", bytes)));
    expect((back.config as { model_type: string }).model_type).toBe(config.modelType);
    using loaded = await loadModel(back, backend, { weights: "f32" });
    const rows = await logitsOf(loaded, ids);
    for (const [i, expected] of nll.entries()) {
      expect(Math.abs(negativeLogLikelihood(rows[i], ids[i + 1]) - expected), `${type}, token ${i}`).toBeLessThan(
        tolerance,
      );
    }
    await back.close();
  }
});
