import { type BlockSpec, type ModelConfig, type ModelSpec, readModelSpec, tensorsOf } from "../../arch/index.js";
import { placesOf } from "../../arch/internal.js";
import { FormatError } from "../../core/index.js";
import { type FloatDType, isJsonObject } from "../../io/index.js";
import type { BlockSizes } from "./block.js";

const dtypeNames: Readonly<Record<FloatDType, string>> = { F32: "float32", BF16: "bfloat16", F16: "float16" };

/** What families call the number of their layers. */
const layerFields = ["num_hidden_layers", "n_layer"];

type RawConfig = Record<string, unknown>;

/** The config of the source with the kept layers alone: their number, and of every list over layers their entries. */
function keepLayers(raw: unknown, layers: number, kept: readonly number[]): RawConfig {
  const result: RawConfig = isJsonObject(raw) ? { ...raw } : {};
  if (kept.length === layers) return result;
  for (const field of layerFields) if (field in result) result[field] = kept.length;
  for (const [field, value] of Object.entries(result)) {
    if (Array.isArray(value) && value.length === layers) result[field] = kept.map((layer) => value[layer]);
  }
  return result;
}

/**
 * The blocks of a result, each as a description of where its tensors lie there.
 * @param kept layers of the source, ascending
 */
export class ResultBlocks {
  readonly #raw: RawConfig;
  /** By sizes: a model of blocks that all have these. What a block is does not depend on the sizes of the others. */
  readonly #models = new Map<string, ModelSpec>();

  constructor(
    raw: unknown,
    readonly config: ModelConfig,
    readonly kept: readonly number[],
    readonly file: string,
  ) {
    this.#raw = keepLayers(raw, config.layers, kept);
    for (const [layer, from] of kept.entries()) this.#checkKind(layer, from);
  }

  /** Block `layer` of the result, with these sizes. */
  at(layer: number, sizes: BlockSizes): BlockSpec {
    const key = JSON.stringify(sizes);
    let model = this.#models.get(key);
    if (model === undefined) {
      const shapes = this.kept.map(() => sizes);
      model = readModelSpec(this.#raw, this.file, undefined, shapes);
      this.#models.set(key, model);
    }
    return model.blocks[layer];
  }

  /** Which layers rotate, look back how far or have experts may follow from their number: then none can be left out. */
  #checkKind(layer: number, from: number): void {
    if (this.kept.length === this.config.layers) return;
    const kindOf = (block: BlockSpec) =>
      JSON.stringify(block, (key, value) =>
        key === "tensor" || key === "weight" || key === "bias" ? undefined : value,
      );
    if (kindOf(this.at(layer, this.config.blocks[from])) === kindOf(this.config.spec.blocks[from])) return;
    throw new FormatError({
      file: this.file,
      problem: `layer ${from} of this family would be another kind of layer as number ${layer}`,
      expected: "layers that do not depend on their number",
      hint: "Leave dropLayers out",
    });
  }
}

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
): { config: RawConfig; blocks: readonly BlockSizes[] | undefined } {
  const result = keepLayers(raw, config.layers, kept);
  if (dtype !== undefined) {
    for (const field of ["dtype", "torch_dtype"]) if (field in result) result[field] = dtypeNames[dtype];
  }
  const [first] = sizes;
  if (!sizes.every((block) => JSON.stringify(block) === JSON.stringify(first)))
    return { config: result, blocks: sizes };
  const { queryHeads, kvHeads, intermediateSize } = first;
  const uniform = { ...result };
  if (intermediateSize !== config.intermediateSize) uniform.intermediate_size = intermediateSize;
  if (queryHeads !== config.queryHeads || kvHeads !== config.kvHeads) {
    // Left out, the size of a head would be taken from the number of heads.
    Object.assign(uniform, { num_attention_heads: queryHeads, num_key_value_heads: kvHeads, head_dim: config.headDim });
  }
  // Families have names of their own for these sizes; rarefy.json says them where the config cannot.
  return isUniform(uniform, result, sizes) ? { config: uniform, blocks: undefined } : { config: result, blocks: sizes };
}

/**
 * Whether a config by itself describes the model that the source's config describes with these sizes. In some families it does not:
 * the width of a head follows from the number of heads there.
 */
function isUniform(uniform: RawConfig, source: RawConfig, sizes: readonly BlockSizes[]): boolean {
  try {
    const alone = readModelSpec(uniform, "config.json");
    const given = readModelSpec(source, "config.json", undefined, sizes);
    const widths = (block: BlockSpec) => placesOf(block).map(({ map }) => [map.rows, map.cols]);
    return (
      JSON.stringify(tensorsOf(alone)) === JSON.stringify(tensorsOf(given)) &&
      JSON.stringify(alone.blocks.map(widths)) === JSON.stringify(given.blocks.map(widths))
    );
  } catch (error) {
    if (error instanceof FormatError) return false;
    throw error;
  }
}
