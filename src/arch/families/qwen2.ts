import * as z from "zod/mini";
import { flag, orElse, positions } from "../configFields.js";
import { type DecoderConfig, type DecoderDefaults, decoderConfig } from "../decoderConfig.js";
import { family } from "../family.js";
import { preNorm } from "../parts.js";
import type { SightSpec } from "../spec.js";
import { attention, type Block, ggufNames, llamaLike, mlp, preNorms, sightOf } from "./llamaLike.js";

export const qwenDefaults: DecoderDefaults = { kvHeads: 32, maxPositions: 32768 };

export const qwenFields = {
  // Left out, the window is 4096 where windows are switched on; null means none.
  sliding_window: z._default(z.nullable(positions), 4096),
  use_sliding_window: flag(false),
  max_window_layers: orElse(z.int().check(z.gte(0), z.lte(2 ** 30)), 28),
};

/** Qwen windows only the layers from `max_window_layers` on, or those `layer_types` names, and only when switched on. */
export function qwenSight(
  config: DecoderConfig & { sliding_window: number | null; use_sliding_window: boolean; max_window_layers: number },
  { layer }: Block,
): SightSpec {
  const windowed =
    config.layer_types === undefined
      ? layer >= config.max_window_layers
      : config.layer_types[layer] === "sliding_attention";
  return sightOf(config.use_sliding_window && windowed ? config.sliding_window : undefined);
}

/** Qwen2 and Qwen2.5 (arXiv 2407.10671): Llama with biases on q, k and v only, for which the config has no field. */
export const qwen2 = family({
  modelType: "qwen2",
  config: decoderConfig(qwenDefaults, qwenFields),
  ignored: ["attention_bias", "mlp_bias"],
  spec: (config, shapes) =>
    llamaLike(config, shapes, (block) =>
      preNorm(preNorms(block), attention(block, { qkvBias: true, sight: qwenSight(config, block) }), mlp(block)),
    ),
  gguf: { architecture: "qwen2", names: ggufNames },
});
