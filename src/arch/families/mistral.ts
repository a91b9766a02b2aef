import * as z from "zod/mini";
import { positions } from "../configFields.js";
import { type DecoderDefaults, decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import { attention, ggufNames, llamaLike, mlp, preNorms, sightOf } from "./llamaLike.js";

export const mistralDefaults: DecoderDefaults = { kvHeads: 8, maxPositions: 131072, bos: 1, eos: [2] };

/** Mistral (arXiv 2310.06825): Llama without biases; the first releases attend through a sliding window. */
export const mistral = family({
  modelType: "mistral",
  // Left out, the window is 4096; null means none.
  config: decoderConfig(mistralDefaults, { sliding_window: z._default(z.nullable(positions), 4096) }),
  ignored: ["attention_bias", "mlp_bias", "use_sliding_window", "max_window_layers"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(preNorms(block), attention(block, { sight: sightOf(config.sliding_window) }), mlp(block)),
    ),
  gguf: {
    architecture: "llama",
    windowed: true,
    rotaryNeighbours: true,
    optionalAttentionBias: true,
    names: ggufNames,
  },
});
