import * as z from "zod/mini";
import { fail, flag, heads, orElse, type RopeFields, size, width } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep, linearsOf } from "../derive.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { gated, latent, type Part, preNorm, stored, together } from "../parts.js";
import { yarnTemperature } from "../ropes/yarn.js";
import { type Block, expertModules, ggufExperts, llamaLike, mlp, normOf, preNorms, routed } from "./llamaLike.js";

/** How much more scores count, beside what the rope has: the settings say so by `mscale_all_dim`. */
function temperature(config: RopeFields): number {
  const { rope_parameters, rope_scaling } = config;
  const { factor, mscale_all_dim: share } = { ...rope_parameters, ...rope_scaling };
  return typeof factor === "number" && typeof share === "number" ? yarnTemperature(factor, share) : 1;
}

const rank = size(2 ** 16);

const schema = z
  .pipe(
    decoderConfig(
      { maxPositions: 4096, bos: 0, eos: [1] },
      {
        attention_bias: flag(false),
        q_lora_rank: z._default(z.nullable(rank), 1536),
        kv_lora_rank: orElse(rank, 512),
        qk_nope_head_dim: orElse(heads, 128),
        qk_rope_head_dim: orElse(heads, 64),
        v_head_dim: orElse(heads, 128),
        rope_interleave: flag(true),
        moe_intermediate_size: orElse(width, 2048),
        n_shared_experts: orElse(z.int().check(z.gte(0), z.lte(256)), 1),
        n_group: orElse(size(4096), 8),
        topk_group: orElse(size(4096), 4),
        routed_scaling_factor: orElse(z.number().check(z.gt(0), z.lte(1e6)), 2.5),
        norm_topk_prob: flag(true),
        // Of their own code, which has more ways of choosing than this model uses.
        scoring_func: orElse(z.literal("sigmoid"), "sigmoid"),
        topk_method: orElse(z.literal("noaux_tc"), "noaux_tc"),
        moe_layer_freq: orElse(z.literal(1), 1),
        first_k_dense_replace: orElse(z.int().check(z.gte(0), z.lte(4096)), 3),
        ...expertFields({ perToken: 8, balance: 0 }),
      },
    ),
    z.transform(withExperts(256)),
  )
  .check(
    z.superRefine(({ experts, n_group: groups, topk_group: kept, num_experts_per_tok: perToken }, context) => {
      if (experts % groups !== 0) fail(context, ["n_group"], `${groups} groups of ${experts} experts`, "equal groups");
      else if (kept > groups || (kept * experts) / groups < perToken) {
        fail(
          context,
          ["topk_group"],
          `${kept} of ${groups} groups for ${perToken} experts`,
          "groups that have as many",
        );
      }
    }),
  );

/**
 * DeepSeek-V3 and R1 (arXiv 2412.19437): latent attention, and behind some dense layers mixtures with a shared expert, chosen by
 * sigmoids with biases among the best groups. Layers that predict a second token are not loaded.
 */
export const deepseekV3 = family({
  modelType: "deepseek_v3",
  config: schema,
  // What stands in other fields too.
  ignored: ["qk_head_dim", "ep_size", "aux_loss_alpha", "seq_aux"],
  spec(config, shapes) {
    const isDense = (layer: number) => layer < config.first_k_dense_replace;
    const intermediateSize = (layer: number) =>
      isDense(layer) ? config.intermediate_size : config.moe_intermediate_size;
    const describe = (block: Block) =>
      preNorm(preNorms(block), attention(block, config), isDense(block.layer) ? mlp(block) : experts(block, config));
    return llamaLike(config, shapes, describe, { intermediateSize });
  },
  gguf: {
    ...ggufExperts,
    architecture: "deepseek2",
    latent: true,
    config: ({ number, required, flag, headDim: rotated }) => ({
      num_key_value_heads: required("attention.head_count"),
      q_lora_rank: number("attention.q_lora_rank") ?? null,
      kv_lora_rank: required("attention.kv_lora_rank"),
      qk_rope_head_dim: rotated,
      // Of files from before the latents were kept, the second.
      qk_nope_head_dim: (number("attention.key_length_mla") ?? required("attention.key_length")) - rotated,
      v_head_dim: number("attention.value_length_mla") ?? required("attention.value_length"),
      first_k_dense_replace: number("leading_dense_block_count") ?? 0,
      n_routed_experts: required("expert_count"),
      num_experts_per_tok: required("expert_used_count"),
      moe_intermediate_size: required("expert_feed_forward_length"),
      n_shared_experts: number("expert_shared_count") ?? 0,
      n_group: number("expert_group_count"),
      topk_group: number("expert_group_used_count"),
      routed_scaling_factor: number("expert_weights_scale") ?? 1,
      norm_topk_prob: flag("expert_weights_norm") ?? false,
      scoring_func: gatings[number("expert_gating_func") ?? 1] ?? `number ${number("expert_gating_func")}`,
    }),
    counts({ spec, ...config }) {
      const mixtures = spec.blocks.map((block) => findStep(block, "mixture"));
      const layer = mixtures.findIndex((mixture) => mixture !== undefined);
      const { latent, kv } = findStep(spec.blocks[0], "attend")!;
      const { rank, width } = latent!;
      const { groups } = mixtures[layer]!.router;
      const rowsOf = (id: string, block = 0) => linearsOf(spec.blocks[block]).find((map) => map.id === id)?.rows;
      const expertWidth = config.blocks[layer].intermediateSize;
      return {
        "attention.head_count_kv": 1,
        "attention.key_length": rank + width,
        "attention.value_length": rank,
        "attention.key_length_mla": kv.k,
        "attention.value_length_mla": kv.v,
        "attention.q_lora_rank": rowsOf("q_a_proj"),
        "attention.kv_lora_rank": rank,
        leading_dense_block_count: layer,
        expert_feed_forward_length: expertWidth,
        expert_shared_count: (rowsOf("shared_gate_proj", layer) ?? 0) / expertWidth,
        expert_group_count: groups?.count,
        expert_group_used_count: groups?.kept,
        expert_gating_func: gatings.indexOf("sigmoid"),
      };
    },
    keys({ spec, rope }) {
      const { router } = spec.blocks.flatMap((block) => findStep(block, "mixture") ?? [])[0];
      const { scale, kv } = findStep(spec.blocks[0], "attend")!;
      return {
        expert_weights_scale: router.factor ?? 1,
        expert_weights_norm: router.normalise,
        ...(rope.type === "yarn" && {
          "rope.scaling.yarn_log_multiplier": (Math.sqrt(scale * Math.sqrt(kv.k)) - 1) / Math.log(rope.factor),
        }),
      };
    },
    problem({ spec }) {
      const isMixture = spec.blocks.map((block) => findStep(block, "mixture") !== undefined);
      if (!isMixture.includes(true)) return "it has no mixtures";
      if (findStep(spec.blocks[0], "rotate")!.pairs !== "neighbours") return "it rotates halves of heads";
      return linearsOf(spec.blocks[0]).some(({ bias }) => bias !== undefined) ? "its attention has biases" : undefined;
    },
    joined: [
      {
        units: "heads",
        tensor: "self_attn.kv_b_proj.weight",
        parts: ["attn_k_b.weight", "attn_v_b.weight"],
        sizes({ spec, queryHeads }) {
          const { kv, latent } = findStep(spec.blocks[0], "attend")!;
          return { heads: queryHeads, rows: [kv.k - latent!.width, kv.v] };
        },
      },
    ],
    names: {
      ...ggufExperts.names,
      inBlock: [
        ...ggufExperts.names.inBlock,
        ["attn_q_a", "self_attn.q_a_proj"],
        ["attn_q_a_norm", "self_attn.q_a_layernorm"],
        ["attn_q_b", "self_attn.q_b_proj"],
        ["attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"],
        ["attn_kv_a_norm", "self_attn.kv_a_layernorm"],
        // Of files from before the latents were kept.
        ["attn_kv_b", "self_attn.kv_b_proj"],
        ["exp_probs_b.bias", "mlp.gate.e_score_correction_bias"],
        ["ffn_gate_shexp", "mlp.shared_experts.gate_proj"],
        ["ffn_up_shexp", "mlp.shared_experts.up_proj"],
        ["ffn_down_shexp", "mlp.shared_experts.down_proj"],
      ],
    },
  },
});

/** `expert_gating_func` of GGUF files. */
const gatings = ["none", "softmax", "sigmoid"];

type Config = z.output<typeof schema>;

function attention(block: Block, config: Config): Part {
  const { at, queryHeads } = block;
  const { qk_nope_head_dim: plain, qk_rope_head_dim: rotated, q_lora_rank: queryRank, attention_bias: bias } = config;
  const map = (name: string, biased = false) => stored(`${at}.self_attn.${name}`, biased);
  const norm = (name: string, length: number) => normOf(block, `self_attn.${name}`, undefined, length);
  return latent(
    {
      hiddenSize: config.hidden_size,
      heads: queryHeads,
      ...(queryRank !== null && { queryRank }),
      rank: config.kv_lora_rank,
      plain,
      rotated,
      value: config.v_head_dim,
    },
    {
      ...(queryRank === null ? { q: map("q_proj") } : { queryLatent: map("q_a_proj", bias), q: map("q_b_proj") }),
      latent: map("kv_a_proj_with_mqa", bias),
      expand: map("kv_b_proj"),
      o: map("o_proj", bias),
    },
    {
      rope: config.rope,
      pairs: config.rope_interleave ? "neighbours" : "halves",
      norms: {
        ...(queryRank !== null && { query: norm("q_a_layernorm", queryRank) }),
        latent: norm("kv_a_layernorm", config.kv_lora_rank),
      },
      scale: temperature(config as RopeFields) ** 2 / Math.sqrt(plain + rotated),
    },
  );
}

function experts(block: Block, config: Config): Part {
  const modules = `${block.at}.mlp`;
  const { hidden_size: hiddenSize, hidden_act: f, n_shared_experts: shared } = config;
  const chosen = routed(block, {
    count: config.experts,
    router: {
      perToken: config.num_experts_per_tok,
      score: "sigmoid",
      choiceBias: { tensor: `${modules}.gate.e_score_correction_bias`, shape: [config.experts] },
      groups: { count: config.n_group, kept: config.topk_group },
      normalise: config.norm_topk_prob,
      factor: config.routed_scaling_factor,
      balance: config.router_aux_loss_coef,
    },
    gate: "mlp.gate",
    expert: expertModules(`${modules}.experts`),
  });
  if (shared === 0) return chosen;
  const map = (name: string) => stored(`${modules}.shared_experts.${name}`);
  const always = gated(
    { hiddenSize, intermediateSize: shared * config.moe_intermediate_size },
    { gate: map("gate_proj"), up: map("up_proj"), down: map("down_proj") },
    { f, name: "shared" },
  );
  return together(chosen, always);
}
