import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { families } from "./families/index.js";
import { readModelSpec } from "./readSpec.js";
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

type Config = Record<string, unknown>;

/**
 * The fields of every family's configuration class in transformers 5.24 with their defaults, but for those that all classes have:
 * `json.dumps(CONFIG_MAPPING[model_type]().to_dict())`.
 */
const classes = JSON.parse(readFileSync(new URL("./fixtures/configClasses.json", import.meta.url), "utf8")) as Record<
  string,
  Config
>;

/** Fields that a family's class has and that change nothing in its models, or nothing without others. */
const inert: Readonly<Record<string, readonly string[]>> = {
  // Of training and of how a model is called.
  "": (
    "initializer_range use_cache pad_token_id attention_dropout hidden_dropout classifier_dropout dropout layerdrop init_std " +
    "resid_pdrop embd_pdrop attn_pdrop output_router_logits router_jitter_noise pretraining_tp"
  ).split(" "),
  // What stands in `layer_types` and `no_rope_layers`.
  qwen2: ["max_window_layers"],
  qwen3: ["max_window_layers"],
  smollm3: ["no_rope_layer_interval"],
  // Of a scaling that is not there.
  phi3: ["original_max_position_embeddings"],
  // Its experts have a function of their own.
  gpt_oss: ["hidden_act"],
  gpt_neox: ["is_decoder"],
  gpt2: (
    "summary_type summary_use_proj summary_activation summary_proj_to_labels summary_first_dropout " +
    "reorder_and_upcast_attn add_cross_attention"
  ).split(" "),
  bert: "label2id hidden_dropout_prob attention_probs_dropout_prob add_cross_attention tie_word_embeddings".split(" "),
  deepseek_v3: ["num_key_value_heads", "qk_head_dim", "head_dim"],
  gemma3_text: ["_sliding_window_pattern"],
};

const windowed = { use_sliding_window: true, sliding_window: 8, layer_types: Array(6).fill("sliding_attention") };
/** What has to be there for other fields to have an effect. */
const alive: Readonly<Record<string, Config>> = {
  qwen2: windowed,
  qwen3: windowed,
  qwen3_moe: { use_sliding_window: true, sliding_window: 8, mlp_only_layers: [1] },
  smollm3: windowed,
  gemma3_text: { rope_parameters: { full_attention: { rope_type: "default", rope_theta: 1e6 } } },
  bert: { architectures: ["BertForSequenceClassification"] },
};

/** A model of six layers, of sixteen experts each. */
function shortened(config: Config): Config {
  const cut = Object.entries(config).map(([field, value]) => {
    if (field === "num_hidden_layers" || field === "n_layer") return [field, 6];
    if (/^(num_local_experts|num_experts|n_routed_experts)$/.test(field)) return [field, 16];
    if (field === "num_experts_per_tok") return [field, 2];
    return [field, Array.isArray(value) ? value.slice(0, 6) : value];
  });
  return Object.fromEntries(cut);
}

const flipped: Readonly<Record<string, unknown>> = {
  full_attention: "sliding_attention",
  sliding_attention: "full_attention",
  BertForSequenceClassification: "BertModel",
  silu: "relu",
  relu: "gelu",
  0: 1,
  1: 0,
};

/** Values that a field does not have, of its own kind and of others. */
function othersThan(value: unknown): unknown[] {
  if (typeof value === "boolean") return [!value];
  if (typeof value === "number")
    return Number.isInteger(value) ? [value * 2, value / 2, 1, 2, 0] : [value / 2, value * 2];
  if (typeof value === "string") return [flipped[value] ?? "relu"];
  if (Array.isArray(value)) return [value.map((entry) => flipped[String(entry)] ?? entry), [2]];
  if (value !== null)
    return [{ rope_theta: 123456 }, { full_attention: { rope_theta: 123456 } }, { 0: "a", 1: "b", 2: "c" }];
  return [true, 4, 0.5, "multi_label_classification"];
}

describe("every field of the configuration classes of transformers", () => {
  it("of every family is there", () => {
    // Terraformer is no family of transformers.
    expect([...Object.keys(classes), "terraformer"].sort()).toEqual(Object.keys(families).sort());
  });

  it.each(Object.entries(classes))("%s: as its class writes it, nothing is warned of", (model_type, config) => {
    const named = unusedFields(shortened(config), "config.json").map(({ field }) => field);
    expect(named).toEqual(model_type === "deepseek_v3" ? ["num_nextn_predict_layers"] : []);
  });

  it.each(Object.entries(classes))(
    "%s: changes the model, is refused, is warned of, or is known to change nothing",
    (model_type, config) => {
      const base = { ...shortened(config), ...alive[model_type] };
      const spec = JSON.stringify(readModelSpec(base, "config.json"));
      const isHeard = (changed: Config, field: string): boolean => {
        try {
          if (JSON.stringify(readModelSpec(changed, "config.json")) !== spec) return true;
        } catch (error) {
          // Another value of the wrong kind shows nothing.
          return String(error).includes("not supported") || /expected (true|false|1|"\w+")/.test(String(error));
        }
        return unusedFields(changed, "config.json").some((unused) => unused.field === field);
      };
      const silent = Object.entries(base)
        .filter(([field, value]) => !othersThan(value).some((other) => isHeard({ ...base, [field]: other }, field)))
        .map(([field]) => field);
      const known = new Set([...inert[""], ...(inert[model_type] ?? [])]);
      expect(silent.filter((field) => !known.has(field))).toEqual([]);
    },
  );
});
