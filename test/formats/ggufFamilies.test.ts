import { expect, test } from "vitest";
import { families, parseModelConfig } from "../../src/arch/index.js";
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
    "qwen2",
    "qwen3",
    "smollm3",
    "phi3",
    "gemma2",
    "gemma3",
    "gpt2",
    "gpt_neox",
  ]);
});

/** A golden checkpoint as a GGUF file. */
async function ggufOf(name: string, type: "f32" | "f16") {
  const checkpoint = await MemoryCheckpoint.golden(name);
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
