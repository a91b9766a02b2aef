import type { ModelConfig } from "../../arch/index.js";
import { type FloatDType, isJsonObject } from "../../io/index.js";
import type { BlockSizes } from "./block.js";

const dtypeNames: Readonly<Record<FloatDType, string>> = { F32: "float32", BF16: "bfloat16", F16: "float16" };

/**
 * `config.json` of the result: that of the source, with what changed. Blocks of one size stay loadable by other tools;
 * blocks that differ are listed for rarefy.json, and the config keeps the sizes of the source.
 * @param kept layers of the source, ascending
 * @param sizes of the result's blocks
 */
export function resultConfig(
  raw: unknown,
  config: ModelConfig,
  kept: readonly number[],
  sizes: readonly BlockSizes[],
  dtype: FloatDType | undefined,
): { config: Record<string, unknown>; blocks: readonly BlockSizes[] | undefined } {
  const result: Record<string, unknown> = isJsonObject(raw) ? { ...raw } : {};
  if (kept.length !== config.layers) {
    result.num_hidden_layers = kept.length;
    const windows = kept.map((layer) => config.slidingWindows[layer]);
    const mixed = config.slidingWindows.some((window) => window !== config.slidingWindows[0]);
    if (mixed || Array.isArray(result.layer_types)) {
      result.layer_types = windows.map((window) => (window === undefined ? "full_attention" : "sliding_attention"));
    }
  }
  if (dtype !== undefined) {
    for (const field of ["dtype", "torch_dtype"]) if (field in result) result[field] = dtypeNames[dtype];
  }
  const [first] = sizes;
  const uniform = sizes.every((block) =>
    Object.keys(first).every((key) => block[key as keyof BlockSizes] === first[key as keyof BlockSizes]),
  );
  if (!uniform) return { config: result, blocks: sizes };
  const { queryHeads, kvHeads, intermediateSize } = first;
  if (intermediateSize !== config.intermediateSize) result.intermediate_size = intermediateSize;
  if (queryHeads !== config.queryHeads || kvHeads !== config.kvHeads) {
    // Left out, the size of a head would be taken from the number of heads.
    Object.assign(result, { num_attention_heads: queryHeads, num_key_value_heads: kvHeads, head_dim: config.headDim });
  }
  return { config: result, blocks: undefined };
}
