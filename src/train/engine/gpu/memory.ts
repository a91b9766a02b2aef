import type { Compute, GpuMemory } from "../../../kernels/index.js";
import { allocateTokens, type TokenMemory } from "./embedding.js";
import type { BlockPlan, DecoderPlan } from "./plan.js";
import { partsLength } from "./products.js";

/** What the backward pass wants to see again of a block. All f32, one row per token. */
export interface BlockMemory {
  /** The residual stream as it comes in, and after attention. */
  input: GpuMemory;
  middle: GpuMemory;
  /** Normed streams with 1/√(mean x² + ε) of each row. */
  normed: GpuMemory;
  inverse: GpuMemory;
  mlpNormed: GpuMemory;
  mlpInverse: GpuMemory;
  /** Queries and keys turned, values: side by side. */
  qkv: GpuMemory;
  /** Heads' outputs side by side. */
  mixed: GpuMemory;
  gateUp: GpuMemory;
  hidden: GpuMemory;
}

/** Buffers of a step for one shape of batch. */
export interface StepMemory {
  blocks: readonly BlockMemory[];
  last: GpuMemory;
  lastNormed: GpuMemory;
  lastInverse: GpuMemory;
  /** [tokens, vocabulary]; the loss makes them their own gradient. */
  logits: GpuMemory;
  /** Attention weights and their gradient, [sequences, heads, positions, positions]; of one block at a time. */
  scores: GpuMemory;
  scoresGradient: GpuMemory;
  /** Gradients of the residual stream, of what a norm gave, of a block's wide insides. */
  stream: GpuMemory;
  normedGradient: GpuMemory;
  wide: GpuMemory;
  hiddenGradient: GpuMemory;
  mixedGradient: GpuMemory;
  /** Products over parts of the tokens, before they are added up. */
  parts: GpuMemory;
  tokens: TokenMemory;
  labels: GpuMemory;
  all: readonly GpuMemory[];
}

/** A buffer that holds these values. */
export function filled(compute: Compute, values: Float32Array | Uint32Array, label: string): GpuMemory {
  const memory = compute.allocate(values.length, label);
  compute.device.gpu.queue.writeBuffer(memory.buffer, 0, values as Float32Array<ArrayBuffer>);
  return memory;
}

export const queryWidth = ({ output }: BlockPlan): number => output.cols;

export function allocateStep(compute: Compute, plan: DecoderPlan, sequences: number, window: number): StepMemory {
  const tokens = sequences * window;
  const places = allocateTokens(compute, tokens);
  const all: GpuMemory[] = Object.values(places);
  const rows = (width: number, label: string) => {
    const memory = compute.allocate(tokens * width, label);
    all.push(memory);
    return memory;
  };
  const widest = (of: (block: BlockPlan) => number) => Math.max(...plan.blocks.map(of));
  const width = plan.embedding.cols;
  const block = (b: BlockPlan): BlockMemory => ({
    input: rows(width, "input"),
    middle: rows(width, "middle"),
    normed: rows(width, "normed"),
    inverse: rows(1, "inverse"),
    mlpNormed: rows(width, "MLP normed"),
    mlpInverse: rows(1, "MLP inverse"),
    qkv: rows(b.qkv.rows, "qkv"),
    mixed: rows(queryWidth(b), "mixed"),
    gateUp: rows(b.gateUp.rows, "gate and up"),
    hidden: rows(b.down.cols, "hidden"),
  });
  const heads = widest(({ queryHeads }) => queryHeads);
  return {
    blocks: plan.blocks.map(block),
    last: rows(width, "last"),
    lastNormed: rows(width, "last normed"),
    lastInverse: rows(1, "last inverse"),
    logits: rows(plan.head.rows, "logits"),
    scores: rows(heads * window, "scores"),
    scoresGradient: rows(heads * window, "gradient of scores"),
    stream: rows(width, "gradient of the stream"),
    normedGradient: rows(width, "gradient of the normed"),
    wide: rows(
      widest((b) => Math.max(b.qkv.rows, b.gateUp.rows)),
      "wide gradient",
    ),
    hiddenGradient: rows(
      widest((b) => b.down.cols),
      "gradient of the hidden",
    ),
    mixedGradient: rows(widest(queryWidth), "gradient of the mixed"),
    parts: rows(Math.ceil(partsLength / tokens), "parts"),
    tokens: places,
    labels: rows(1, "labels"),
    all,
  };
}
