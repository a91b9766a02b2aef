import * as z from "zod/mini";
import { activation, flag, orElse, positions, type RopeFields, readRope, ropeParameters } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { findStep } from "../derive.js";
import { family } from "../family.js";
import type { ModelConfig } from "../modelSizes.js";
import { sandwich } from "../parts.js";
import type { RopeSpec } from "../ropes/index.js";
import { cap, gemmaConfig, gemmaKeys, gemmaNames, gemmaProblem, sandwichNorms } from "./gemma2.js";
import { attention, llamaLike, mlp, sightOf } from "./llamaLike.js";

/** Bases of the rotary embedding where the file gives none: of layers that see everything, and of windowed ones. */
const [globalTheta, localTheta] = [1_000_000, 10_000];

/** The rotary embeddings of layers that see everything, and of windowed ones. */
const ropesOf = ({ spec, slidingWindows }: ModelConfig) => {
  const of = (windowed: boolean) => {
    const layer = slidingWindows.findIndex((window) => (window !== undefined) === windowed);
    return layer < 0 ? undefined : findStep(spec.blocks[layer], "rotate")?.rope;
  };
  return { global: of(false), local: of(true) };
};

/** Gemma 3 (arXiv 2503.19786): Gemma 2 with normalised heads, five windowed layers to one, each kind with its own rotation. */
export const gemma3 = family({
  modelType: "gemma3_text",
  config: z.pipe(
    decoderConfig(
      { kvHeads: 4, headDim: 256, maxPositions: 131072, bos: 2, eos: [1], tied: true, theta: globalTheta },
      {
        hidden_activation: activation("gelu_pytorch_tanh"),
        query_pre_attn_scalar: orElse(z.number().check(z.gt(0), z.lte(1e6)), 256),
        attn_logit_softcapping: cap(null),
        final_logit_softcapping: cap(null),
        sliding_window: z._default(z.nullable(positions), 4096),
        sliding_window_pattern: orElse(positions, 6),
        attention_bias: flag(false),
        // True in encoders made of these models.
        use_bidirectional_attention: orElse(z.literal(false), false),
        rope_parameters: z.nullish(
          z.looseObject({ full_attention: z.nullish(ropeParameters), sliding_attention: z.nullish(ropeParameters) }),
        ),
        // As transformers before 5 spells it.
        rope_local_base_freq: orElse(z.number().check(z.gte(1), z.lte(1e12)), localTheta),
      },
    ),
    z.transform((config, context) => {
      const { full_attention: full, sliding_attention: sliding } = config.rope_parameters ?? {};
      const read = (rope_parameters: RopeFields["rope_parameters"], theta: number) =>
        readRope({ ...config, rope_scaling: undefined, rope_parameters }, context, { theta })?.rope as RopeSpec;
      return {
        ...config,
        globalRope: full ? read(full, globalTheta) : config.rope,
        localRope: read(sliding, config.rope_local_base_freq),
      };
    }),
  ),
  ignored: ["use_sliding_window", "max_window_layers", "_sliding_window_pattern"],
  spec: (config, shapes) =>
    llamaLike(
      { ...config, hidden_act: config.hidden_activation },
      shapes,
      (block) => {
        const { layer } = block;
        const isGlobal =
          config.layer_types === undefined
            ? (layer + 1) % config.sliding_window_pattern === 0
            : config.layer_types[layer] === "full_attention";
        return sandwich(
          sandwichNorms(block),
          attention(block, {
            qkvBias: config.attention_bias,
            outputBias: config.attention_bias,
            headNorms: true,
            plusOne: true,
            scale: config.query_pre_attn_scalar ** -0.5,
            softcap: config.attn_logit_softcapping ?? undefined,
            sight: sightOf(isGlobal ? undefined : config.sliding_window),
            rotation: { rope: isGlobal ? config.globalRope : config.localRope },
          }),
          mlp(block),
        );
      },
      {
        embeddingScale: Math.sqrt(config.hidden_size),
        logitCap: config.final_logit_softcapping ?? undefined,
        plusOne: true,
      },
    ),
  gguf: {
    architecture: "gemma3",
    ownWindows: true,
    plusOneNorms: true,
    activation: "geluTanh",
    names: gemmaNames,
    config: (keys) => ({
      ...gemmaConfig(keys, 62),
      attn_logit_softcapping: keys.number("attn_logit_softcapping") ?? null,
      final_logit_softcapping: keys.number("final_logit_softcapping") ?? null,
      rope_local_base_freq: keys.number("rope.freq_base_swa") ?? localTheta,
    }),
    keys: (config) => ({
      ...gemmaKeys(config),
      "rope.freq_base": ropesOf(config).global?.theta ?? globalTheta,
      "rope.freq_base_swa": ropesOf(config).local?.theta,
    }),
    problem(config) {
      const { global, local } = ropesOf(config);
      if ([global, local].some((rope) => rope !== undefined && rope.type !== "default")) {
        return "its rotary embedding is scaled; export it as safetensors";
      }
      return gemmaProblem(config, 62, 6);
    },
  },
});
