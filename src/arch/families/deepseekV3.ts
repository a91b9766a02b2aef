import * as z from "zod/mini";
import { fail, flag, heads, orElse, type RopeFields, size, width } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { gated, latent, type Part, preNorm, stored, together } from "../parts.js";
import { type Block, expertModules, llamaLike, mlp, normOf, preNorms, routed } from "./llamaLike.js";

/** How much more scores count where positions are stretched (YaRN, arXiv 2309.00071): 1 where they are not. */
function temperature(config: RopeFields): number {
  const { rope_parameters, rope_scaling } = config;
  const { factor, mscale_all_dim: share } = { ...rope_parameters, ...rope_scaling };
  if (typeof factor !== "number" || typeof share !== "number" || factor <= 1) return 1;
  return 0.1 * share * Math.log(factor) + 1;
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
  spec(config, shapes) {
    const isDense = (layer: number) => layer < config.first_k_dense_replace;
    const intermediateSize = (layer: number) =>
      isDense(layer) ? config.intermediate_size : config.moe_intermediate_size;
    const describe = (block: Block) =>
      preNorm(preNorms(block), attention(block, config), isDense(block.layer) ? mlp(block) : experts(block, config));
    return llamaLike(config, shapes, describe, { intermediateSize });
  },
});

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
