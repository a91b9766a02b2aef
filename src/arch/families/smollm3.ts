import * as z from "zod/mini";
import { flag, maxLayers, optional, orElse, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import type { BlockSpec } from "../spec.js";
import { attention, ggufNames, llamaLike, mlp, preNorms, sightOf } from "./llamaLike.js";

/** SmolLM3 (Bakouch et al. 2025): Llama in which every fourth layer does not rotate positions (NoPE, arXiv 2305.19466). */
export const smollm3 = family({
  modelType: "smollm3",
  config: decoderConfig(
    { kvHeads: 4, maxPositions: 32768, bos: 128000, eos: [128001], theta: 2_000_000, tied: true },
    {
      attention_bias: flag(false),
      mlp_bias: flag(false),
      // 1 where positions are rotated.
      no_rope_layers: optional(z.array(z.int().check(z.gte(0), z.lte(1))).check(z.maxLength(maxLayers))),
      no_rope_layer_interval: orElse(positions, 4),
      sliding_window: optional(positions),
      use_sliding_window: flag(false),
    },
  ),
  ignored: ["max_window_layers"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) => {
      const { layer } = block;
      const rotates = config.no_rope_layers?.[layer] ?? ((layer + 1) % config.no_rope_layer_interval === 0 ? 0 : 1);
      const windowed = config.use_sliding_window && config.layer_types?.[layer] === "sliding_attention";
      return preNorm(
        preNorms(block),
        attention(block, {
          qkvBias: config.attention_bias,
          outputBias: config.attention_bias,
          sight: sightOf(windowed ? config.sliding_window : undefined),
          ...(rotates === 0 && { rotation: undefined }),
        }),
        mlp(block, config.mlp_bias),
      );
    }),
  gguf: {
    architecture: "smollm3",
    rotaryNeighbours: true,
    optionalAttentionBias: true,
    names: ggufNames,
    problem({ spec, slidingWindows }) {
      const rotates = ({ steps }: BlockSpec, layer: number) =>
        steps.some((step) => step.do === "rotate") === ((layer + 1) % 4 !== 0);
      if (!spec.blocks.every(rotates)) return "llama.cpp rotates positions in all layers but every fourth";
      return slidingWindows.some((window) => window !== undefined) ? "it has a sliding window" : undefined;
    },
  },
});
