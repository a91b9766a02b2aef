import type { ModelConfig } from "../../arch/index.js";
import { FormatError, UsageError } from "../../core/index.js";
import { type Checkpoint, isJsonObject } from "../../io/index.js";
import { type DecoderBlock, effectiveWeight } from "./block.js";

interface MemoryTensor {
  shape: readonly number[];
  values: Float32Array;
}

/**
 * A block as a checkpoint of one layer, so that it loads like a model: a vocabulary of four tokens of zeros takes the
 * place of embedding and head, and loading costs no more than the block. Closing it closes nothing.
 */
export function blockView(source: Checkpoint, config: ModelConfig, block: DecoderBlock): Checkpoint {
  const prefix = `model.layers.${block.layer}.`;
  const renamed = (name: string) => `model.layers.0.${name.slice(prefix.length)}`;
  const { hiddenSize, headDim } = config;
  const tensors = new Map<string, MemoryTensor>([
    ["model.embed_tokens.weight", { shape: [4, hiddenSize], values: new Float32Array(4 * hiddenSize) }],
    ["model.norm.weight", { shape: [hiddenSize], values: new Float32Array(hiddenSize) }],
  ]);
  for (const [{ tensor, shape }, { values }] of block.vectors)
    tensors.set(renamed(tensor), { shape: shape.length === 1 ? [values.length] : shape, values });
  for (const matrix of block.matrices.values()) {
    const shape = [matrix.rows, matrix.cols];
    tensors.set(renamed(matrix.place.map.weight.tensor), { shape, values: effectiveWeight(matrix) });
  }
  const { queryHeads, kvHeads, intermediateSize } = block.sizes;
  const windowed = config.slidingWindows[block.layer] !== undefined;
  const location = `${source.location}, block ${block.layer} as it is compressed`;
  return memoryCheckpoint({ location, files: source.files }, tensors, {
    ...(isJsonObject(source.config) ? source.config : {}),
    num_hidden_layers: 1,
    num_attention_heads: queryHeads,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    intermediate_size: intermediateSize,
    vocab_size: 4,
    tie_word_embeddings: true,
    layer_types: [windowed ? "sliding_attention" : "full_attention"],
  });
}

function memoryCheckpoint(
  { location, files }: Pick<Checkpoint, "location" | "files">,
  tensors: ReadonlyMap<string, MemoryTensor>,
  config: object,
): Checkpoint {
  const find = (name: string): Float32Array => {
    const found = tensors.get(name);
    if (found === undefined) throw new FormatError({ file: location, field: name, problem: "no such tensor" });
    return found.values;
  };
  return {
    location,
    files,
    config,
    tensors: new Map(Array.from(tensors, ([name, { shape }]) => [name, { name, dtype: "F32", shape }])),
    warnings: [],
    async read(name, byteOffset = 0, byteLength, into) {
      const { buffer, byteOffset: start, byteLength: total } = find(name);
      const bytes = new Uint8Array(buffer, start + byteOffset, byteLength ?? total - byteOffset);
      into?.set(bytes);
      return into ?? bytes.slice();
    },
    readFloat32: async (name) => find(name).slice(),
    async readScales(name) {
      throw new UsageError(`${name} has no grid`);
    },
    readJson: async () => undefined,
    close: async () => {},
  };
}
