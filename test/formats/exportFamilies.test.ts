import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { parseModelConfig } from "../../src/arch/index.js";
import { metadataOfConfig } from "../../src/io/gguf/fromConfig.js";
import { aligned, headerBytes } from "../../src/io/gguf/headerBytes.js";
import { readGgufParts } from "../../src/io/gguf/parts.js";
import { ggufFiles, memorySource, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles, type ExportOptions, exportModel, localGgufFiles, openFile } from "../../src/io/index.node.js";
import { jsonBytes } from "../../src/io/internal.js";
import { preTokenizers } from "../../src/io/tokenizer/preTokenizers.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { architectureGolden, logitsOf, negativeLogLikelihood } from "../golden/golden.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { stackStores } from "../support/storeAs.mjs";
import { filesOf, quantizedModel } from "./quantizedModel.js";

const root = await mkdtemp(join(tmpdir(), "rarefy-families-"));
afterAll(() => rm(root, { recursive: true }));

const special = (content: string, id: number) => {
  return { id, content, special: true, single_word: false, lstrip: false, rstrip: false, normalized: false };
};
const vocabOf = (size: number, named: readonly string[] = []) =>
  Object.fromEntries(Array.from({ length: size }, (_, id) => [named[id] ?? `t${id}`, id]));
const byteLevel = {
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: preTokenizers[0].rules,
  model: { type: "BPE", vocab: vocabOf(512), merges: [] },
};
const ofBert = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const wordPiece = {
  ...byteLevel,
  added_tokens: ofBert.map(special),
  normalizer: { type: "BertNormalizer", lowercase: true, strip_accents: null },
  pre_tokenizer: { type: "BertPreTokenizer" },
  model: { type: "WordPiece", unk_token: "[UNK]", continuing_subword_prefix: "##", vocab: vocabOf(512, ofBert) },
};

/** A model in a directory of its own, exported. */
async function exported(
  name: string,
  files: ReadonlyMap<string, Uint8Array>,
  options: ExportOptions,
  tokenizer: object = byteLevel,
) {
  const directory = join(root, name);
  await mkdir(directory);
  for (const [file, bytes] of files) await writeFile(join(directory, file), bytes);
  await writeFile(join(directory, "tokenizer.json"), jsonBytes(tokenizer));
  const output = `${directory}-out${options.format === "gguf" ? ".gguf" : ""}`;
  const result = await exportModel(directoryFiles(directory), output, options);
  const back = options.format === "gguf" ? await localGgufFiles(output) : directoryFiles(output);
  return { result, output, back: await openCheckpoint(back) };
}

// Releases of transformers up to 4.30 stored the numbers of positions beside weights, of which an exporter knows no type.
test.each(["gguf", "safetensors"] as const)(
  "a BERT with a pooler and positions as numbers becomes %s",
  async (format) => {
    const golden = await MemoryCheckpoint.golden("bert");
    const positions = new Uint8Array(new BigInt64Array(128).buffer);
    const own = [...golden.tensors.values()].flatMap((tensor) =>
      tensor.name.startsWith("bert.") ? { ...tensor, name: tensor.name.slice("bert.".length) } : [],
    );
    const files = await filesOf({ ...golden.config, architectures: ["BertModel"] }, [
      ...own,
      { name: "embeddings.position_ids", dtype: "I64", shape: [1, 128], bytes: positions },
    ]);
    const { result, back } = await exported(`bert-${format}`, files, { format, type: "f32" }, wordPiece);
    const poolers = format === "gguf" ? 2 : 0;
    expect(result.verification).toMatchObject({ tensors: own.length - poolers, unchanged: own.length - poolers });
    expect([...back.tensors.keys()].sort()).toEqual(
      own.flatMap(({ name }) => (poolers > 0 && name.startsWith("pooler") ? [] : name)).sort(),
    );
    await back.close();
  },
);

test("masks and frequencies that GPT-2 and GPT-NeoX stored once are no weights", async () => {
  for (const [name, at, stored] of [
    ["gpt2", "transformer.h.0.attn", ["bias", "masked_bias"]],
    ["gpt_neox", "gpt_neox.layers.0.attention", ["bias", "masked_bias", "rotary_emb.inv_freq"]],
  ] as const) {
    const golden = await MemoryCheckpoint.golden(name);
    const masks = stored.map((end) => ({ name: `${at}.${end}`, dtype: "F32", shape: [1], bytes: new Uint8Array(4) }));
    const files = await filesOf(golden.config, [...golden.tensors.values(), ...masks]);
    const { result, back } = await exported(name, files, { format: "gguf", type: "f16" });
    expect(result.verification.tensors, name).toBe(golden.tensors.size);
    await back.close();
  }
});

test.each(["gemma2", "gemma3"])("%s in f32: norms lose what 1 more leaves no bits for, and no more", async (name) => {
  const golden = await MemoryCheckpoint.golden(name);
  const files = await filesOf(golden.config, [...golden.tensors.values()]);
  const { result, back } = await exported(name, files, { format: "gguf", type: "f32" });
  const norm = "model.layers.0.input_layernorm.weight";
  const [before, after] = [golden.values(norm), await back.readFloat32(norm)];
  const off = before.map((value, i) => Math.abs(value - after[i])).reduce((most, value) => Math.max(most, value));
  expect(off).toBeGreaterThan(0);
  expect(off).toBeLessThanOrEqual(2 ** -23);
  expect(result.verification.unchanged).toBeLessThan(result.verification.tensors);
  await back.close();
});

test("experts of gpt-oss with biases become f16", async () => {
  const golden = await MemoryCheckpoint.golden("gpt_oss");
  const stem = "model.layers.1.mlp.experts.gate_up_proj_bias";
  const bias = Float32Array.from({ length: 4 * 320 }, (_, i) => Math.sin(i));
  golden.set(stem, [4, 320], bias);
  const files = await filesOf(golden.config, [...golden.tensors.values()]);
  const { back } = await exported("biased", files, { format: "gguf", type: "f16" });
  expect(await back.readFloat32(stem)).toEqual(bias);
  await back.close();
});

test("experts that are stored in MXFP4 keep their codes in a GGUF file of mxfp4", async () => {
  const { files, expected } = await quantizedModel("gpt_oss", stackStores.mxfp4);
  const { output, back } = await exported("mxfp4", files, { format: "gguf", type: "mxfp4" });
  for (const name of ["gate_up_proj", "down_proj"].map((map) => `model.layers.1.mlp.experts.${map}`)) {
    const [wanted, read] = [expected.values(name), await back.readFloat32(name)];
    expect(read.findIndex((value, i) => value !== wanted[i])).toBe(-1);
    expect(read.length).toBe(wanted.length);
  }
  const source = (await openFile(output))!;
  const { tensors } = await readGgufParts(source, async () => undefined);
  const types = ["ffn_up_exps", "ffn_down_exps", "attn_q", "ffn_gate_inp"].map(
    (stem) => tensors.get(`blk.0.${stem}.weight`)!.type.name,
  );
  expect(types).toEqual(["MXFP4", "MXFP4", "Q8_0", "F32"]);
  await source.close();
  await back.close();

  const llama = await MemoryCheckpoint.golden("llama");
  const plain = await filesOf(llama.config, [...llama.tensors.values()]);
  await expect(exported("dense", plain, { format: "gguf", type: "mxfp4" })).rejects.toThrow(/a type of experts/);
});

test("files of DeepSeek from before what makes keys and values was cut in two", async () => {
  const golden = await MemoryCheckpoint.golden("deepseek_v3");
  const files = await filesOf(golden.config, [...golden.tensors.values()]);
  const { output, back } = await exported("new", files, { format: "gguf", type: "f32" });
  await back.close();
  const source = (await openFile(output))!;
  const parts = await readGgufParts(source, async () => undefined);
  const tensors = [];
  for (const { name, type, shape, byteOffset, byteLength } of parts.tensors.values()) {
    if (/attn_[kv]_b/.test(name)) continue;
    tensors.push({ name, type, shape, bytes: await source.read(byteOffset, byteLength) });
  }
  await source.close();
  const { type } = tensors[0];
  for (const layer of [0, 1]) {
    const { shape, bytes } = golden.tensors.get(`model.layers.${layer}.self_attn.kv_b_proj.weight`)!;
    tensors.push({ name: `blk.${layer}.attn_kv_b.weight`, type, shape, bytes });
  }
  const config = parseModelConfig(golden.config, "config.json");
  const metadata = metadataOfConfig(config);
  const at = (key: string) => `deepseek2.attention.${key}`;
  for (const key of ["key_length_mla", "value_length_mla"]) metadata.delete(at(key));
  for (const [key, value] of [
    ["key_length", 24],
    ["value_length", 16],
    ["head_count_kv", 4],
  ] as const) {
    metadata.set(at(key), { u32: value });
  }
  let end = 0;
  const plans = tensors.map(({ name, type, shape, bytes }) => {
    const offset = end;
    end += aligned(bytes.byteLength);
    return { name, type, shape, offset };
  });
  const older = Buffer.concat([
    headerBytes(metadata, plans),
    ...tensors.flatMap(({ bytes }) => [bytes, new Uint8Array(aligned(bytes.byteLength) - bytes.byteLength)]),
  ]);
  const read = await openCheckpoint(await ggufFiles("m.gguf", async () => memorySource("m.gguf", older)));
  const { ids, nll } = architectureGolden("deepseek_v3");
  using backend = await openBackend("reference");
  using model = await loadModel(read, backend, { weights: "f32" });
  const rows = await logitsOf(model, ids);
  for (const [i, wanted] of nll.entries()) {
    expect(Math.abs(negativeLogLikelihood(rows[i], ids[i + 1]) - wanted)).toBeLessThan(2e-3);
  }
});
