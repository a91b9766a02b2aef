import type { ModelConfig } from "../arch/index.js";
import type { Checkpoint } from "../io/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { elementCount } from "../tensor/index.js";
import {
  type BlockLayout,
  type DecoderLayout,
  type ExpectedLinear,
  type ExpectedTensor,
  layoutTensors,
  mlpLinears,
  type RouterLayout,
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

/** The format of a router: it is small, and rounding it more than it is stored would change who is chosen. */
export const routerFormat = (checkpoint: Checkpoint, { weight }: RouterLayout): WeightFormatId =>
  checkpoint.tensors.get(weight.name)?.dtype === "BF16" ? "bf16" : "f32";

/** Bytes of all packed matrices of a decoder: those that every token is multiplied with, and all that are loaded. */
export function packedMatrixBytes(
  checkpoint: Checkpoint,
  layout: DecoderLayout,
  weights: WeightFormatId,
): { perToken: number; loaded: number } {
  const bytes = (id: WeightFormatId, rows: number, cols: number) => weightFormats[id].byteLength(rows, cols);
  const sum = (linears: readonly ExpectedLinear[]) =>
    linears.flatMap(storedMatrices).reduce((all, { shape }) => all + bytes(weights, shape[0], shape[1]), 0);
  let perToken = bytes(weights, padTo4(layout.head.shape[0]), layout.head.shape[1]);
  let idle = 0;
  for (const block of layout.blocks) {
    const mlps = sum(mlpLinears(block));
    perToken += sum([...block.qkv, block.output]) + mlps * activeShare(block);
    idle += mlps * (1 - activeShare(block));
    if (block.router === undefined) continue;
    const [experts, cols] = block.router.weight.shape;
    perToken += bytes(routerFormat(checkpoint, block.router), padTo4(experts), cols);
  }
  if (layout.head === layout.embedding) return { perToken, loaded: perToken + idle };
  const [rows, cols] = layout.embedding.shape;
  return { perToken, loaded: perToken + idle + bytes(embeddingFormat(checkpoint, layout, weights), rows, cols) };
}

/** Share of a block's MLPs that work for one token. */
export const activeShare = ({ mlps, router }: BlockLayout): number =>
  router === undefined ? 1 : router.perToken / mlps.length;

/** Number of parameters by what they are for. Tied embeddings count once, as embeddings. */
export interface ParameterCounts {
  embedding: number;
  attention: number;
  /** All MLPs, those of all experts. */
  mlp: number;
  /** What chooses among experts; 0 without any. */
  router: number;
  /** 0 when tied. */
  head: number;
  /** Norm weights and biases. */
  vectors: number;
  total: number;
  /** Of the total, those that work for one token: less than all where it is sent to some of several experts. */
  active: number;
}

export function countParameters(layout: DecoderLayout): ParameterCounts {
  const elements = (tensors: readonly ExpectedTensor[]) =>
    tensors.reduce((all, { shape }) => all + elementCount(shape), 0);
  const sum = (linears: readonly ExpectedLinear[]) => elements(linears.flatMap(storedMatrices));
  const counts = {
    embedding: elementCount(layout.embedding.shape),
    attention: sum(layout.blocks.flatMap((block) => [...block.qkv, block.output])),
    mlp: sum(layout.blocks.flatMap(mlpLinears)),
    router: elements(layout.blocks.flatMap(({ router }) => router?.weight ?? [])),
    head: layout.head === layout.embedding ? 0 : elementCount(layout.head.shape),
    vectors: elements(layoutTensors(layout).filter(({ shape }) => shape.length === 1)),
  };
  const total = Object.values(counts).reduce((all, count) => all + count, 0);
  const idle = layout.blocks.reduce((all, block) => all + sum(mlpLinears(block)) * (1 - activeShare(block)), 0);
  return { ...counts, total, active: total - idle };
}

/** Keys and values of one position in f32, over all layers. */
export function kvBytesPerPosition({ blocks, headDim }: ModelConfig): number {
  return blocks.reduce((sum, { kvHeads }) => sum + kvHeads, 0) * headDim * 2 * Float32Array.BYTES_PER_ELEMENT;
}
