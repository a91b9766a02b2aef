import { flag } from "../configFields.js";
import { decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import { attention, ggufNames, llamaLike, mlp, preNorms } from "./llamaLike.js";
import { qwenDefaults, qwenFields, qwenSight } from "./qwen2.js";

/** Qwen3, dense (arXiv 2505.09388): the heads of q and k are normalised one by one before the rotation. */
export const qwen3 = family({
  modelType: "qwen3",
  config: decoderConfig({ ...qwenDefaults, headDim: 128 }, { ...qwenFields, attention_bias: flag(false) }),
  ignored: ["mlp_bias"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(
        preNorms(block),
        attention(block, {
          qkvBias: config.attention_bias,
          outputBias: config.attention_bias,
          headNorms: true,
          sight: qwenSight(config, block),
        }),
        mlp(block),
      ),
    ),
  gguf: { architecture: "qwen3", optionalAttentionBias: true, names: ggufNames },
});
