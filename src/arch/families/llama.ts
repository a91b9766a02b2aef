import { flag } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import { attention, ggufNames, llamaLike, mlp, preNorms } from "./llamaLike.js";

/** Llama 1 to 3 (arXiv 2302.13971, 2407.21783). */
export const llama = family({
  modelType: "llama",
  config: decoderConfig(
    { maxPositions: 2048, bos: 1, eos: [2] },
    { attention_bias: flag(false), mlp_bias: flag(false) },
  ),
  ignored: ["sliding_window", "use_sliding_window", "max_window_layers"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(
        preNorms(block),
        attention(block, { qkvBias: config.attention_bias, outputBias: config.attention_bias }),
        mlp(block, config.mlp_bias),
      ),
    ),
  gguf: { architecture: "llama", rotaryNeighbours: true, optionalAttentionBias: true, names: ggufNames },
});
