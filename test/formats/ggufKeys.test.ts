import { describe, expect, it } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { unusedFields } from "../../src/arch/internal.js";
import { FormatError } from "../../src/core/index.js";
import { Metadata } from "../../src/io/gguf/metadata.js";
import { configFromMetadata } from "../../src/io/gguf/toConfig.js";
import { tokenizerFromMetadata } from "../../src/io/gguf/toTokenizer.js";
import { memoryFiles } from "../../src/io/memory.js";
import { loadTokenizer } from "../../src/text/index.js";

type Keys = Record<string, Metadata["values"] extends ReadonlyMap<string, infer Value> ? Value : never>;

const tokens = ["<unk>", "<s>", "</s>", "<x>", "a", "b", "ab", "▁", "▁a", "<0x0A>"];
const llama: Keys = {
  "general.architecture": "llama",
  "llama.block_count": 2,
  "llama.context_length": 128,
  "llama.embedding_length": 64,
  "llama.feed_forward_length": 160,
  "llama.attention.head_count": 4,
  "llama.attention.layer_norm_rms_epsilon": 1e-5,
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.tokens": tokens,
  "tokenizer.ggml.scores": new Float32Array(tokens.length),
  "tokenizer.ggml.token_type": Int32Array.from([2, 3, 3, 1, 1, 1, 1, 1, 1, 6]),
  "tokenizer.ggml.bos_token_id": 1,
  "tokenizer.ggml.eos_token_id": 2,
};
/** Of a byte-level tokenizer. */
const gpt2: Keys = {
  ...llama,
  "tokenizer.ggml.model": "gpt2",
  "tokenizer.ggml.merges": ["a b"],
  "tokenizer.ggml.pre": "gpt-2",
};

/** All that is made of the keys: the files, the description, and the names of what is warned of. */
async function read(keys: Keys) {
  const metadata = new Metadata("m.gguf", new Map(Object.entries(keys)));
  const config = configFromMetadata(metadata, new Map(), {});
  readModelSpec(config, "config.json");
  const parts = tokenizerFromMetadata(metadata);
  const json = (value: object) => new TextEncoder().encode(JSON.stringify(value));
  const tokenizer =
    parts &&
    (await loadTokenizer(
      memoryFiles(
        "m",
        new Map([
          ["tokenizer.json", json(parts.tokenizer)],
          ["tokenizer_config.json", json(parts.config)],
        ]),
      ),
    ));
  const warned = [...unusedFields(config, "config.json"), ...(tokenizer?.warnings ?? [])].map(({ field }) => field);
  return { made: JSON.stringify([config, parts]), warned };
}

type Outcome = "used" | "named" | "without effect" | "refused";
async function outcomeOf(without: Keys, given: Keys, key: string): Promise<Outcome> {
  const before = await read(without);
  expect(before.warned).toEqual([]);
  const after = await read(given).catch((error: unknown) => error);
  if (after instanceof FormatError) return "refused";
  if (after instanceof Error) throw after;
  const { made, warned } = after as typeof before;
  expect(warned.filter((name) => name !== key)).toEqual([]);
  if (warned.length > 0) return "named";
  return made === before.made ? "without effect" : "used";
}

/** Every key of the format's documentation and of what llama.cpp reads, with a value that is not what is assumed without it. */
const documented: [key: string, value: Keys[string], outcome: Outcome][] = [
  ["general.architecture", "mamba", "refused"],
  ["general.type", "adapter", "refused"],
  ["general.alignment", 64, "without effect"],
  ["general.file_type", 7, "without effect"],
  ["general.quantization_version", 2, "without effect"],
  ["general.name", "a model", "without effect"],
  ["general.license", "apache-2.0", "without effect"],
  ["quantize.imatrix.file", "x.dat", "without effect"],
  ["split.count", 1, "without effect"],
  ["llama.vocab_size", tokens.length, "without effect"],
  ["llama.block_count", 3, "used"],
  ["llama.context_length", 64, "used"],
  ["llama.embedding_length", 32, "used"],
  ["llama.feed_forward_length", 96, "used"],
  ["llama.feed_forward_length", Int32Array.from([160, 96]), "refused"],
  ["llama.use_parallel_residual", true, "named"],
  ["llama.tensor_data_layout", "Meta AI original pth", "without effect"],
  ["llama.expert_count", 8, "refused"],
  ["llama.expert_used_count", 2, "without effect"],
  ["llama.leading_dense_block_count", 1, "named"],
  ["llama.attention.head_count", 8, "used"],
  ["llama.attention.head_count_kv", 2, "used"],
  ["llama.attention.key_length", 32, "used"],
  ["llama.attention.value_length", 8, "refused"],
  ["llama.attention.layer_norm_rms_epsilon", 1e-6, "used"],
  ["llama.attention.layer_norm_epsilon", 1e-6, "named"],
  ["llama.attention.max_alibi_bias", 8, "named"],
  ["llama.attention.clamp_kqv", 30, "named"],
  ["llama.attention.clamp_kqv", 0, "without effect"],
  ["llama.attention.scale", 0.5, "named"],
  ["llama.attention.causal", false, "refused"],
  ["llama.attention.sliding_window", 32, "used"],
  ["llama.attn_logit_softcapping", 50, "named"],
  ["llama.final_logit_softcapping", 30, "named"],
  ["llama.logit_scale", 0.0625, "named"],
  ["llama.residual_scale", 0.22, "named"],
  ["llama.embedding_scale", 12, "named"],
  ["llama.rope.dimension_count", 16, "without effect"],
  ["llama.rope.dimension_sections", Int32Array.from([4, 4]), "named"],
  ["llama.rope.freq_base", 5e5, "used"],
  ["llama.rope.scale_linear", 2, "used"],
  ["llama.rope.scaling.factor", 2, "used"],
  ["llama.rope.scaling.type", "none", "without effect"],
  ["llama.rope.scaling.type", "nonesuch", "refused"],
  ["llama.rope.scaling.attn_factor", 1.1, "named"],
  ["llama.rope.scaling.original_context_length", 64, "without effect"],
  ["llama.rope.scaling.finetuned", true, "without effect"],
  ["llama.rope.scaling.yarn_log_multiplier", 0.1, "named"],
  ["tokenizer.ggml.model", "rwkv", "refused"],
  ["tokenizer.ggml.tokens", [...tokens, "c"], "refused"],
  ["tokenizer.ggml.scores", Float32Array.from(tokens, (_, id) => -id), "without effect"],
  ["tokenizer.ggml.token_type", Int32Array.from([2, 3, 3, 4, 1, 1, 1, 1, 1, 6]), "used"],
  ["tokenizer.ggml.token_type_count", 2, "without effect"],
  ["tokenizer.ggml.bos_token_id", 3, "used"],
  ["tokenizer.ggml.eos_token_id", 3, "used"],
  ["tokenizer.ggml.eot_token_id", 3, "used"],
  ["tokenizer.ggml.eom_token_id", 3, "used"],
  ["tokenizer.ggml.unknown_token_id", 0, "used"],
  ["tokenizer.ggml.padding_token_id", 3, "used"],
  ["tokenizer.ggml.seperator_token_id", 3, "used"],
  ["tokenizer.ggml.cls_token_id", 3, "used"],
  ["tokenizer.ggml.mask_token_id", 3, "used"],
  ["tokenizer.ggml.fim_pre_token_id", 3, "without effect"],
  ["tokenizer.ggml.add_bos_token", false, "used"],
  ["tokenizer.ggml.add_eos_token", true, "used"],
  ["tokenizer.ggml.add_sep_token", true, "named"],
  ["tokenizer.ggml.add_space_prefix", false, "used"],
  ["tokenizer.ggml.remove_extra_whitespaces", true, "used"],
  ["tokenizer.ggml.precompiled_charsmap", new Uint8Array(8), "without effect"],
  ["tokenizer.ggml.normalizer.lowercase", true, "named"],
  ["tokenizer.huggingface.json", "{}", "without effect"],
  ["tokenizer.rwkv.world", "x", "named"],
  ["tokenizer.chat_template", "{{ messages }}", "used"],
];

describe("keys of GGUF files", () => {
  it.each(documented)("%s %j is %s", async (key, value, outcome) => {
    const without = { ...llama };
    expect(await outcomeOf(without, { ...without, [key]: value }, key)).toBe(outcome);
  });

  it.each([
    ["tokenizer.ggml.merges", ["a b", "ab b"], "used"],
    ["tokenizer.ggml.pre", "qwen2", "used"],
    ["tokenizer.ggml.pre", "nonesuch", "refused"],
    ["tokenizer.ggml.add_space_prefix", true, "without effect"],
    ["tokenizer.ggml.add_bos_token", true, "used"],
  ] as [string, Keys[string], Outcome][])("byte-level: %s %j is %s", async (key, value, outcome) => {
    expect(await outcomeOf(gpt2, { ...gpt2, [key]: value }, key)).toBe(outcome);
  });

  it("a factor of rotation without a type is linear, as llama.cpp takes it", async () => {
    const rotation = (keys: Keys) =>
      configFromMetadata(new Metadata("m", new Map(Object.entries({ ...llama, ...keys }))), new Map(), {})
        .rope_parameters;
    expect(rotation({ "llama.rope.scale_linear": 4 })).toMatchObject({ rope_type: "linear", factor: 4 });
    expect(rotation({ "llama.rope.scaling.factor": 1 })).toMatchObject({ rope_type: "default" });
    expect(rotation({ "llama.rope.scaling.type": "none", "llama.rope.scaling.factor": 4 })).toMatchObject({
      rope_type: "default",
    });
  });
});
