import * as z from "zod/mini";
import { flag, optional, orElse, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep } from "../derive.js";
import { expertFields, withExperts } from "../expertConfig.js";
import { family } from "../family.js";
import { gated, interleaved, mixture, oneOf, type Part, preNorm, type Stored, stored } from "../parts.js";
import { attention, type Block, ggufNames, llamaLike, preNorms, sightOf } from "./llamaLike.js";

const schema = z.pipe(
  decoderConfig(
    { kvHeads: 8, headDim: 64, maxPositions: 131072, epsilon: 1e-5, theta: 150_000 },
    {
      attention_bias: flag(true),
      sliding_window: optional(positions),
      swiglu_limit: orElse(z.number().check(z.gt(0), z.lte(1e6)), 7),
      // How much steeper than a sigmoid the gate is.
      swiglu_alpha: orElse(z.number().check(z.gt(0), z.lte(1e6)), 1.702),
      ...expertFields({ perToken: 4, balance: 0.9 }),
    },
  ),
  z.transform(withExperts(128)),
);

/**
 * gpt-oss (arXiv 2508.10925): every other layer sees a window, each head has a sink, and experts, all in one tensor, have biases
 * and clamped gates; softmax is over the chosen.
 */
export const gptOss = family({
  modelType: "gpt_oss",
  config: schema,
  // What stands in other fields too.
  ignored: ["initial_context_length", "experts_per_token"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) => {
      const { at, layer, queryHeads } = block;
      const kind = config.layer_types?.[layer] ?? (layer % 2 === 0 ? "sliding_attention" : "full_attention");
      return preNorm(
        preNorms(block),
        attention(block, {
          qkvBias: config.attention_bias,
          outputBias: config.attention_bias,
          sight: sightOf(kind === "sliding_attention" ? (config.sliding_window ?? 128) : undefined),
          sinks: { tensor: `${at}.self_attn.sinks`, shape: [queryHeads] },
        }),
        experts(block, config),
      );
    }),
  gguf: {
    architecture: "gpt-oss",
    ownWindows: true,
    optionalAttentionBias: true,
    // OpenAI's own code has parts of pairs at the ends of the range; llama.cpp takes whole ones and calls it the same model.
    ropeScaling: { truncate: false },
    config: (keys) => ({
      intermediate_size: keys.required("expert_feed_forward_length"),
      num_local_experts: keys.required("expert_count"),
      num_experts_per_tok: keys.required("expert_used_count"),
    }),
    counts: ({ intermediateSize }) => ({ expert_feed_forward_length: intermediateSize }),
    problem({ spec, slidingWindows, attentionBias }) {
      const { limit, sharpness } = findStep(findStep(spec.blocks[0], "mixture")!.experts[0], "activate")!.clamped!;
      if (limit !== 7 || Math.abs(sharpness - 1.702) > 1e-6) return "its gates have another limit or steepness";
      if (!attentionBias) return "its attention has no biases";
      return slidingWindows.some((window, layer) => (window === undefined) === (layer % 2 === 0))
        ? "not every other layer has a window, from the first on"
        : undefined;
    },
    joined: [
      {
        units: "experts",
        tensor: "mlp.experts.gate_up_proj",
        parts: ["ffn_gate_exps.weight", "ffn_up_exps.weight"],
      },
      {
        units: "experts",
        tensor: "mlp.experts.gate_up_proj_bias",
        parts: ["ffn_gate_exps.bias", "ffn_up_exps.bias"],
      },
      { units: "experts", tensor: "mlp.experts.down_proj", parts: ["ffn_down_exps.weight"] },
    ],
    names: {
      ...ggufNames,
      inBlock: [
        ...ggufNames.inBlock.filter(([name]) => !name.startsWith("ffn_")),
        ["post_attention_norm", "post_attention_layernorm"],
        ["attn_sinks.weight", "self_attn.sinks"],
        ["ffn_gate_inp", "mlp.router"],
        ["ffn_down_exps.bias", "mlp.experts.down_proj_bias"],
      ],
    },
  },
});

function experts({ at, intermediateSize }: Block, config: z.output<typeof schema>): Part {
  const { hidden_size: hiddenSize, experts: count, swiglu_limit: limit, swiglu_alpha: sharpness } = config;
  const modules = `${at}.mlp`;
  const inStack = (name: string, e: number): Stored => oneOf(`${modules}.experts.${name}`, count, e);
  return mixture(
    count,
    {
      perToken: config.num_experts_per_tok,
      score: "softmax",
      choiceFirst: true,
      normalise: false,
      balance: config.router_aux_loss_coef,
    },
    { router: stored(`${modules}.router`, true), hiddenSize },
    (expert) => {
      const [gate, up] = interleaved(inStack("gate_up_proj", expert), 2, 1, intermediateSize);
      return gated(
        { hiddenSize, intermediateSize },
        { gate, up, down: inStack("down_proj", expert) },
        { f: "silu", expert, clamped: { limit, sharpness } },
      );
    },
  );
}
