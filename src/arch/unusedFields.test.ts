import { describe, expect, it } from "vitest";
import { families } from "./families/index.js";
import { unusedFields } from "./unusedFields.js";

const sizes = {
  vocab_size: 512,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 1,
  num_attention_heads: 4,
  num_key_value_heads: 2,
};
const fieldsOf = (config: object) =>
  unusedFields({ ...sizes, ...config } as Record<string, unknown>, "config.json").map(({ field }) => field);

/** What transformers 5 writes for every decoder. */
const everywhere = {
  architectures: ["X"],
  bos_token_id: 1,
  eos_token_id: 2,
  pad_token_id: 0,
  dtype: "bfloat16",
  hidden_act: "silu",
  initializer_range: 0.02,
  max_position_embeddings: 256,
  rms_norm_eps: 1e-6,
  rope_parameters: { rope_theta: 10000, rope_type: "default" },
  tie_word_embeddings: false,
  transformers_version: "5.1.0",
  use_cache: true,
  attention_dropout: 0,
};
/** And for each family. */
const documented: Record<string, object> = {
  llama: { attention_bias: false, mlp_bias: false, head_dim: 16, pretraining_tp: 1 },
  mistral: { head_dim: 16, sliding_window: 4096 },
  mixtral: {
    head_dim: 16,
    sliding_window: null,
    num_experts_per_tok: 2,
    num_local_experts: 8,
    output_router_logits: false,
    router_aux_loss_coef: 0.001,
    router_jitter_noise: 0,
  },
  qwen2: { use_sliding_window: false, sliding_window: 4096, max_window_layers: 28, layer_types: ["full_attention"] },
  qwen3: {
    head_dim: 16,
    attention_bias: false,
    use_sliding_window: false,
    sliding_window: null,
    max_window_layers: 28,
    layer_types: ["full_attention"],
  },
};

describe("fields of config.json", () => {
  it.each(Object.entries(documented))("%s: every documented one is used or changes nothing", (model_type, config) => {
    expect(Object.keys(families)).toContain(model_type);
    expect(fieldsOf({ ...everywhere, ...config, model_type })).toEqual([]);
  });

  it.each(Object.keys(documented))("%s: one that nobody reads is named", (model_type) => {
    const odd = { logit_scale: 0.5, attn_logit_softcapping: 50, clip_qkv: 8, my_flag: false, my_null: null };
    expect(fieldsOf({ ...everywhere, ...documented[model_type], model_type, ...odd })).toEqual([
      "logit_scale",
      "attn_logit_softcapping",
      "clip_qkv",
    ]);
  });

  it("says the value", () => {
    const config = { ...sizes, ...everywhere, model_type: "llama", logit_scale: 0.5 };
    expect(unusedFields(config, "config.json")).toEqual([
      { field: "logit_scale", problem: '0.5 is not used: no "llama" model reads it' },
    ]);
  });
});
