import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { families, parseModelConfig } from "../../src/arch/index.js";
import { unusedFields } from "../../src/arch/internal.js";
import { createFile, memorySinks } from "../../src/io/byteSink.js";
import { openCheckpoint } from "../../src/io/checkpoint.js";
import { ggufFiles } from "../../src/io/gguf/files.js";
import { readGgufHeader } from "../../src/io/gguf/header.js";
import { readGgufParts } from "../../src/io/gguf/parts.js";
import { writeGguf } from "../../src/io/gguf/writeGguf.js";
import { memoryFiles, memorySource } from "../../src/io/memory.js";
import { preTokenizers } from "../../src/io/tokenizer/preTokenizers.js";
import { openBackend } from "../../src/kernels/index.js";
import { loadModel } from "../../src/model/index.js";
import { embedText } from "../../src/runtime/index.js";
import { toFloat32 } from "../../src/tensor/index.js";
import { loadTokenizer } from "../../src/text/index.js";
import { architectureGolden, architectureNames, logitsOf, negativeLogLikelihood, path } from "../golden/golden.js";
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
    "gpt_oss",
    "deepseek_v3",
  ]);
});

/** As many heads of keys as of queries, as released models of OLMoE have: each repeated, so that the model computes the same. */
function repeatKeyHeads(golden: MemoryCheckpoint) {
  const fields = golden.config as Record<string, number>;
  const { hidden_size: hiddenSize, num_attention_heads: heads, num_key_value_heads: kept } = fields;
  const width = hiddenSize / heads;
  for (const { name, shape } of [...golden.tensors.values()]) {
    if (!/\.(?:[kv]_proj|k_norm)\.weight$/.test(name)) continue;
    const values = golden.values(name);
    const headSize = (values.length / shape[0]) * width;
    const repeated = Float32Array.from({ length: (values.length * heads) / kept }, (_, i) => {
      const head = Math.floor(i / headSize);
      return values[Math.floor((head * kept) / heads) * headSize + (i % headSize)];
    });
    golden.set(name, [heads * width, ...shape.slice(1)], repeated);
  }
  golden.config = { ...golden.config, num_key_value_heads: heads };
}

/** A golden checkpoint as a GGUF file. @param tokens the first of the vocabulary */
async function ggufOf(
  name: string,
  type: "f32" | "f16",
  changed: object = {},
  change: (checkpoint: MemoryCheckpoint) => void = () => {},
  tokens: readonly string[] = [],
) {
  const checkpoint = await MemoryCheckpoint.golden(name);
  if (name === "olmoe") repeatKeyHeads(checkpoint);
  change(checkpoint);
  Object.assign(checkpoint.config, changed);
  const config = parseModelConfig(checkpoint.config, "config.json");
  const vocab = Object.fromEntries(Array.from({ length: config.vocabSize }, (_, id) => [tokens[id] ?? `t${id}`, id]));
  const model = { type: "BPE", vocab, merges: [] };
  const tokenizer = { normalizer: null, pre_tokenizer: preTokenizers[0].rules, model, added_tokens: [] };
  const source = Object.assign(checkpoint, {
    readJson: async (file: string) => (file === "tokenizer.json" ? tokenizer : undefined),
  });
  const files = new Map<string, Uint8Array>();
  await createFile(memorySinks(files), "m.gguf", (sink) => writeGguf(sink, source, config, { type, name }));
  return { checkpoint, config, bytes: files.get("m.gguf")! };
}

// llama.cpp goes by the name of a file, and opens none that is called phi3 or phi-3 without these.
test.each([
  ["their own", ["</s>", "<unk>", "<s>", "<|endoftext|>"], "phi3"],
  ["other", ["</s>", "<unk>", "<s>"], "Phi 3"],
] as const)("Phi-3 with %s tokens has a name under which llama.cpp opens it", async (_, tokens, called) => {
  const { bytes } = await ggufOf("phi3", "f32", {}, undefined, tokens);
  const { metadata } = await readGgufHeader(memorySource("m.gguf", bytes));
  expect(metadata.get("general.name")).toBe(called);
});

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
  // A head's keys made of latents are turned, [heads, latent 16, keys 16]; its values follow them in the checkpoint.
  [
    "deepseek_v3",
    "blk.1.attn_k_b.weight",
    "model.layers.1.self_attn.kv_b_proj.weight",
    (v: Float32Array) =>
      Float32Array.from({ length: v.length / 2 }, (_, i) => {
        const [head, latent, key] = [Math.floor(i / 256), Math.floor(i / 16) % 16, i % 16];
        return v[(head * 32 + key) * 16 + latent];
      }),
  ],
  [
    "deepseek_v3",
    "blk.0.attn_v_b.weight",
    "model.layers.0.self_attn.kv_b_proj.weight",
    (v: Float32Array) => v.filter((_, i) => Math.floor(i / 256) % 2 === 1),
  ],
  // [experts, rows 160, cols 64]; the checkpoint has [experts, cols, gate and up in turns].
  [
    "gpt_oss",
    "blk.0.ffn_up_exps.weight",
    "model.layers.0.mlp.experts.gate_up_proj",
    (v: Float32Array) =>
      Float32Array.from({ length: v.length / 2 }, (_, i) => {
        const [expert, row, col] = [Math.floor(i / 10240), Math.floor(i / 64) % 160, i % 64];
        return v[(expert * 64 + col) * 320 + 2 * row + 1];
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

// Those of the golden are 0.
test("biases of gpt-oss' experts lie as their rows do, in f32, and come back", async () => {
  const stem = "model.layers.1.mlp.experts";
  const both = Float32Array.from({ length: 4 * 320 }, (_, i) => i);
  const down = Float32Array.from({ length: 4 * 64 }, (_, i) => -i);
  const { bytes } = await ggufOf("gpt_oss", "f16", {}, (golden) => {
    golden.set(`${stem}.gate_up_proj_bias`, [4, 320], both);
    golden.set(`${stem}.down_proj_bias`, [4, 64], down);
  });
  const { tensors } = await readGgufParts(memorySource("m.gguf", bytes), async () => undefined);
  for (const [part, name] of ["gate", "up"].entries()) {
    const { source, byteOffset, byteLength, shape } = tensors.get(`blk.1.ffn_${name}_exps.bias`)!;
    expect(shape).toEqual([4, 160]);
    expect([...toFloat32("F32", await source.read(byteOffset, byteLength))]).toEqual(
      [...both].filter((_, i) => i % 2 === part),
    );
  }
  const back = await openCheckpoint(await ggufFiles("m.gguf", async () => memorySource("m.gguf", bytes)));
  expect(await back.readFloat32(`${stem}.gate_up_proj_bias`)).toEqual(both);
  expect(await back.readFloat32(`${stem}.down_proj_bias`)).toEqual(down);
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

test("keys of DeepSeek say what of each head is in a latent, and counts are whole numbers", async () => {
  const { bytes } = await ggufOf("deepseek_v3", "f32", {
    rope_parameters: {
      rope_type: "yarn",
      factor: 40,
      original_max_position_embeddings: 64,
      mscale: 1,
      mscale_all_dim: 1,
    },
  });
  const { metadata } = await readGgufHeader(memorySource("m.gguf", bytes));
  const keys = Object.fromEntries([...metadata].map(([key, value]) => [key.replace("deepseek2.", ""), value]));
  expect(keys).toMatchObject({
    "attention.head_count_kv": 1,
    "attention.key_length": 24,
    "attention.value_length": 16,
    "attention.key_length_mla": 24,
    "attention.value_length_mla": 16,
    "attention.q_lora_rank": 24,
    "attention.kv_lora_rank": 16,
    "rope.dimension_count": 8,
    leading_dense_block_count: 1,
    expert_feed_forward_length: 48,
    expert_shared_count: 1,
    expert_group_count: 4,
    expert_group_used_count: 2,
    expert_weights_scale: 2.5,
    expert_weights_norm: true,
    expert_gating_func: 2,
  });
  expect(keys["rope.scaling.yarn_log_multiplier"]).toBeCloseTo(0.1, 6);
  const at = (key: string) => {
    const start = Buffer.from(bytes).indexOf(`deepseek2.${key}`) + `deepseek2.${key}`.length;
    return new DataView(bytes.buffer, bytes.byteOffset).getUint32(start, true);
  };
  // u32 is 4, f32 is 6: llama.cpp refuses a key of another type.
  expect([at("expert_feed_forward_length"), at("expert_weights_scale")]).toEqual([4, 6]);
});

test("a text ends where a window does that llama.cpp passes over", async () => {
  for (const [name, config, reach] of [
    ["mistral", {}, 8],
    ["mistral", { sliding_window: null }, 256],
    ["mixtral", { sliding_window: 100 }, 100],
    ["gemma2", {}, 256],
    ["gpt_oss", {}, 256],
  ] as const) {
    const { config: parsed, bytes } = await ggufOf(name, "f32", config);
    const { metadata } = await readGgufHeader(memorySource("m.gguf", bytes));
    expect(metadata.get(`${families[parsed.modelType].gguf!.architecture}.context_length`), name).toBe(reach);
  }
});

const known: {
  keys: string[];
  families: Record<string, { architecture: string; names: Record<string, string>; known: string[] }>;
} = JSON.parse(readFileSync(path("gguf-names.json"), "utf8"));

test.each(Object.entries(known.families))("%s: tensors and keys have the names of gguf-py", async (name, theirs) => {
  const { bytes } = name === "bert" ? await bertFile() : await ggufOf(name, "f32");
  const { metadata, tensors } = await readGgufHeader(memorySource("m.gguf", bytes));
  expect(metadata.get("general.architecture")).toBe(theirs.architecture);
  const stems = [...tensors.keys()].map((tensor) => /^(?:blk\.\d+\.)?(\w+)\.(?:weight|bias)$/.exec(tensor)?.[1]);
  expect(stems.filter((stem) => !theirs.known.includes(String(stem)))).toEqual([]);
  const keys = [...metadata.keys()].map((key) => key.replace(`${theirs.architecture}.`, ""));
  expect(keys.filter((key) => !known.keys.includes(key))).toEqual([]);
  // What several tensors of a file hold, their map gives in one, and ends of names that a checkpoint leaves out.
  const apart = /attn_kv_b|_exps/;
  for (const [own, inFile] of Object.entries(theirs.names)) {
    if (!apart.test(inFile))
      expect(
        [inFile, `${inFile}.weight`].some((one) => tensors.has(one)),
        own,
      ).toBe(true);
  }
});

test("mixtures that llama.cpp computes otherwise are refused with the reason", async () => {
  for (const [name, config, problem] of [
    ["qwen3_moe", { norm_topk_prob: false }, /experts are left as they are/],
    ["olmoe", { norm_topk_prob: true }, /made to add up to 1/],
    ["olmoe", { clip_qkv: 8 }, /clipped/],
    [
      "qwen2",
      { use_sliding_window: true, sliding_window: 8, layer_types: ["full_attention", "sliding_attention"] },
      /only some layers have a sliding window/,
    ],
    ["mixtral", { router_type: "relu" }, /chosen by relu/],
    ["deepseek_v3", { rope_interleave: false }, /rotates halves/],
    ["gpt_oss", { swiglu_limit: 5 }, /another limit or steepness/],
    ["gpt_oss", { layer_types: ["full_attention", "sliding_attention"] }, /not every other layer has a window/],
  ] as const) {
    await expect(ggufOf(name, "f32", config), name).rejects.toThrow(problem);
  }
});

/** A BERT that makes vectors, as GGUF: words of its tokenizer begin plain, as in BERT's own vocabularies. */
async function bertFile(changed: object = {}, config: object = {}) {
  const golden = await MemoryCheckpoint.golden("bert");
  golden.config = { ...golden.config, architectures: ["BertModel"], ...config };
  for (const [name, tensor] of [...golden.tensors]) {
    golden.tensors.delete(name);
    const own = /^bert\.(.*)$/.exec(name)?.[1];
    if (own !== undefined) golden.tensors.set(own, { ...tensor, name: own });
  }
  const words = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "play",
    "##ing",
    "##s",
    "un",
    "##play",
    ",",
    "[",
    "cafe",
  ];
  const vocab = Object.fromEntries(
    Array.from({ length: 512 }, (_, id) => [words[id] ?? `w${id}`, id] as [string, number]),
  );
  const special = (id: number) => ({
    id,
    content: words[id],
    special: true,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
  });
  const tokenizer = {
    version: "1.0",
    added_tokens: [0, 1, 2, 3, 4].map(special),
    normalizer: {
      type: "BertNormalizer",
      clean_text: true,
      handle_chinese_chars: true,
      strip_accents: null,
      lowercase: true,
    },
    pre_tokenizer: { type: "BertPreTokenizer" },
    model: {
      type: "WordPiece",
      unk_token: "[UNK]",
      continuing_subword_prefix: "##",
      max_input_chars_per_word: 100,
      vocab,
    },
    decoder: { type: "WordPiece", prefix: "##", cleanup: true },
    post_processor: { type: "BertProcessing", sep: ["[SEP]", 3], cls: ["[CLS]", 2] },
    ...changed,
  };
  const names = { unk: "[UNK]", cls: "[CLS]", sep: "[SEP]", mask: "[MASK]", pad: "[PAD]" };
  const settings = Object.fromEntries(Object.entries(names).map(([name, token]) => [`${name}_token`, token]));
  const source = Object.assign(golden, {
    readJson: async (file: string) =>
      file === "tokenizer.json" ? tokenizer : file === "tokenizer_config.json" ? settings : undefined,
  });
  const files = new Map<string, Uint8Array>();
  const parsed = parseModelConfig(golden.config, "config.json");
  await createFile(memorySinks(files), "m.gguf", (sink) =>
    writeGguf(sink, source, parsed, { type: "f32", name: "bert" }),
  );
  return { tokenizer, settings, bytes: files.get("m.gguf")! };
}

test("bert: vectors from a GGUF file are the golden's, and its WordPiece cuts texts alike", async () => {
  const golden = JSON.parse(readFileSync(path("arch/bert/golden.json"), "utf8"));
  const { tokenizer, settings, bytes } = await bertFile();
  const { metadata, tensors } = await readGgufHeader(memorySource("m.gguf", bytes));
  expect([...tensors.keys()].filter((name) => name.includes("pooler"))).toEqual([]);
  expect(Object.fromEntries(metadata)).toMatchObject({
    "bert.attention.causal": false,
    "bert.pooling_type": 1,
    "tokenizer.ggml.model": "bert",
    "tokenizer.ggml.token_type_count": 2,
    "tokenizer.ggml.bos_token_id": 2,
    "tokenizer.ggml.seperator_token_id": 3,
  });
  expect((metadata.get("tokenizer.ggml.tokens") as string[]).slice(2, 9)).toEqual([
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "\u2581play",
    "ing",
    "s",
    "\u2581un",
  ]);
  const back = await ggufFiles("m.gguf", async () => memorySource("m.gguf", bytes));
  const checkpoint = await openCheckpoint(back);
  expect(unusedFields(checkpoint.config as Record<string, unknown>, "config.json")).toEqual([]);
  using backend = await openBackend("reference");
  using model = await loadModel(checkpoint, backend, { weights: "f32" });
  const vector = await embedText(model, Uint32Array.from(golden.input_ids));
  for (const [i, value] of (golden.mean as number[]).entries()) expect(Math.abs(vector[i] - value)).toBeLessThan(2e-4);

  const json = (value: object) => new TextEncoder().encode(JSON.stringify(value));
  const own = await loadTokenizer(
    memoryFiles(
      "bert",
      new Map([
        ["tokenizer.json", json(tokenizer)],
        ["tokenizer_config.json", json(settings)],
      ]),
    ),
  );
  const read = await loadTokenizer(back);
  for (const text of ["Playing, unplays [ CAFÉ", "w77 xyz", "[MASK] playing", ""])
    expect([...read.encode(text)], text).toEqual([...own.encode(text)]);
  expect([...read.encode("Unplays")]).toEqual([2, 8, 9, 7, 3]);
});

test("what llama.cpp would cut or compute otherwise of BERT is refused", async () => {
  const normalizer = { type: "BertNormalizer", lowercase: false };
  await expect(bertFile({ normalizer })).rejects.toThrow(/lower case/);
  await expect(bertFile({}, { hidden_act: "relu" })).rejects.toThrow(/computes it with gelu/);
  await expect(ggufOf("bert", "f32")).rejects.toThrow(/head that classifies/);
});

test("the parts of a tensor must be there and fit each other", async () => {
  const { bytes } = await ggufOf("gpt_oss", "f32");
  const changed = (from: string, to: string) => {
    const copy = Buffer.from(bytes);
    copy.write(to, copy.indexOf(from), "latin1");
    return ggufFiles("m.gguf", async () => memorySource("m.gguf", copy)).then(openCheckpoint);
  };
  await expect(changed("blk.0.ffn_up_exps.weight", "blk.0.ffn_xx_exps.weight")).rejects.toThrow(
    /ffn_gate_exps\.weight: it is there without blk\.0\.ffn_up_exps\.weight/,
  );
});

const factors = (first: number) => Array.from({ length: 8 }, (_, i) => first + i / 4);
test.each([
  ["llama", { rope_type: "yarn", factor: 4, original_max_position_embeddings: 64, rope_theta: 10000 }],
  [
    "deepseek_v3",
    {
      rope_type: "yarn",
      factor: 40,
      original_max_position_embeddings: 64,
      rope_theta: 10000,
      mscale: 1,
      mscale_all_dim: 1,
    },
  ],
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
    const rows = await logitsOf(loaded, ids.subarray(0, loaded.config.maxPositions));
    for (const [i, expected] of nll.slice(0, rows.length).entries()) {
      expect(Math.abs(negativeLogLikelihood(rows[i], ids[i + 1]) - expected), `${type}, token ${i}`).toBeLessThan(
        tolerance,
      );
    }
    await back.close();
  }
});
