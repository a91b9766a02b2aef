import type { Checkpoint, ModelConfig } from "../io/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { elementCount } from "../tensor/index.js";
import {
  blockLinears,
  type DecoderLayout,
  type ExpectedLinear,
  type ExpectedTensor,
  layoutTensors,
  storedMatrices,
} from "./layout.js";

/** Rows of the head, and columns of the logits, which come in fours. */
export const padTo4 = (n: number): number => Math.ceil(n / 4) * 4;

/**
 * The format of embeddings that are not tied to the head: they are looked up, not multiplied, so they stay in the
 * smallest format that holds them as they are stored. f16 loses bits in bf16, which only `f32` models mind.
 */
export function embeddingFormat(
  checkpoint: Checkpoint,
  layout: DecoderLayout,
  weights: WeightFormatId,
): WeightFormatId {
  if (layout.head === layout.embedding) return weights;
  const dtype = checkpoint.tensors.get(layout.embedding.name)?.dtype;
  return dtype === "F32" || (dtype === "F16" && weights === "f32") ? "f32" : "bf16";
}

/** Bytes of all packed matrices of a decoder: those that every token is multiplied with, and all that are loaded. */
export function packedMatrixBytes(
  checkpoint: Checkpoint,
  layout: DecoderLayout,
  weights: WeightFormatId,
): { perToken: number; loaded: number } {
  const bytes = (id: WeightFormatId, rows: number, cols: number) => weightFormats[id].byteLength(rows, cols);
  let perToken = bytes(weights, padTo4(layout.head.shape[0]), layout.head.shape[1]);
  for (const { shape } of layout.blocks.flatMap(blockLinears).flatMap(storedMatrices)) {
    perToken += bytes(weights, shape[0], shape[1]);
  }
  if (layout.head === layout.embedding) return { perToken, loaded: perToken };
  const [rows, cols] = layout.embedding.shape;
  return { perToken, loaded: perToken + bytes(embeddingFormat(checkpoint, layout, weights), rows, cols) };
}

/** Number of parameters by what they are for. Tied embeddings count once, as embeddings. */
export interface ParameterCounts {
  embedding: number;
  attention: number;
  mlp: number;
  /** 0 when tied. */
  head: number;
  /** Norm weights and biases. */
  vectors: number;
  total: number;
}

export function countParameters(layout: DecoderLayout): ParameterCounts {
  const elements = (tensors: readonly ExpectedTensor[]) =>
    tensors.reduce((all, { shape }) => all + elementCount(shape), 0);
  const sum = (linears: readonly ExpectedLinear[]) => elements(linears.flatMap(storedMatrices));
  const matrices = {
    embedding: elementCount(layout.embedding.shape),
    attention: sum(layout.blocks.flatMap((block) => [...block.qkv, block.output])),
    mlp: sum(layout.blocks.flatMap((block) => [...block.gateUp, block.down])),
    head: layout.head === layout.embedding ? 0 : elementCount(layout.head.shape),
  };
  const vectors = elements(layoutTensors(layout).filter(({ shape }) => shape.length === 1));
  return { ...matrices, vectors, total: vectors + Object.values(matrices).reduce((all, count) => all + count, 0) };
}

/** Keys and values of one position in f32, over all layers. */
export function kvBytesPerPosition({ blocks, headDim }: ModelConfig): number {
  return blocks.reduce((sum, { kvHeads }) => sum + kvHeads, 0) * headDim * 2 * Float32Array.BYTES_PER_ELEMENT;
}
