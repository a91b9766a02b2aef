import type { ModelConfig } from "../../arch/index.js";

/**
 * Weights of each linear map of a decoder block relative to hiddenSize²: q = o = 1 where heads fill the hidden size,
 * k = v = kvHeads / queryHeads, gate = up = down = intermediateSize / hiddenSize, once for every expert that works for a
 * token. They say what a share of zeros in front
 * of each map saves.
 */
export function projectionCosts(
  config: Pick<ModelConfig, "hiddenSize" | "intermediateSize" | "queryHeads" | "kvHeads" | "headDim" | "experts">,
) {
  const queries = (config.queryHeads * config.headDim) / config.hiddenSize;
  const keys = (config.kvHeads * config.headDim) / config.hiddenSize;
  const hidden = ((config.experts?.perToken ?? 1) * config.intermediateSize) / config.hiddenSize;
  return {
    q_proj: queries,
    k_proj: keys,
    v_proj: keys,
    o_proj: queries,
    gate_proj: hidden,
    up_proj: hidden,
    down_proj: hidden,
  };
}
