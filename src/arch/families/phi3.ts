import { optional, orElse, positions } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { gated, grouped, preNorm, stacked, stored } from "../parts.js";
import { ggufNames, llamaLike, preNorms, sightOf } from "./llamaLike.js";

/** Phi-3 and Phi-4 (arXiv 2404.14219): Llama with q, k and v in one tensor, and gate and up in another. */
export const phi3 = family({
  modelType: "phi3",
  config: decoderConfig(
    { maxPositions: 4096, epsilon: 1e-5, bos: 1, eos: [32000], partialRotation: true },
    { sliding_window: optional(positions), original_max_position_embeddings: orElse(positions, 4096) },
  ),
  ignored: ["use_sliding_window", "max_window_layers"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) => {
      const { at, queryHeads, kvHeads, intermediateSize } = block;
      const { hidden_size: hiddenSize, head_dim: headDim, rope, rotaryWidth: width, hidden_act: f } = config;
      const kvWidth = kvHeads * headDim;
      const [q, k, v] = stacked(stored(`${at}.self_attn.qkv_proj`), [queryHeads * headDim, kvWidth, kvWidth]);
      const [gate, up] = stacked(stored(`${at}.mlp.gate_up_proj`), [intermediateSize, intermediateSize]);
      return preNorm(
        preNorms(block),
        grouped(
          { hiddenSize, queryHeads, kvHeads, headDim },
          { q, k, v, o: stored(`${at}.self_attn.o_proj`) },
          { sight: sightOf(config.sliding_window), rotation: { rope, width } },
        ),
        gated({ hiddenSize, intermediateSize }, { gate, up, down: stored(`${at}.mlp.down_proj`) }, { f }),
      );
    }),
  gguf: {
    architecture: "phi3",
    names: {
      ...ggufNames,
      inBlock: [
        ["attn_norm", "input_layernorm"],
        ["attn_qkv", "self_attn.qkv_proj"],
        ["attn_output", "self_attn.o_proj"],
        ["ffn_norm", "post_attention_layernorm"],
        ["ffn_up", "mlp.gate_up_proj"],
        ["ffn_down", "mlp.down_proj"],
      ],
    },
    config: ({ number }) => ({
      original_max_position_embeddings: number("rope.scaling.original_context_length") ?? number("context_length"),
    }),
  },
});
