import type { ModelConfig } from "../../../arch/index.js";
import type { GpuMemory } from "../../../kernels/index.js";
import { Attention } from "./attention.js";
import { gated, gatedBackward, rotate } from "./elementKernels.js";
import { Embedding, type TokenPlaces } from "./embedding.js";
import type { GpuStep, Outputs } from "./gpuObjective.js";
import { allocateStep, type BlockMemory, type StepMemory } from "./memory.js";
import { type ModelMemory, Operations } from "./operations.js";
import type { BlockPlan, DecoderPlan } from "./plan.js";
import { crossEntropy, rmsNorm, rmsNormBackward, rmsNormWeight } from "./rowKernels.js";

/**
 * The loss of a decoder and its gradient as GPU dispatches written out by hand: forward, then backward through the same
 * buffers.
 */
export class DecoderStep implements GpuStep {
  readonly memory: StepMemory;
  readonly outputs: Outputs;
  readonly #operations: Operations;
  readonly #attention: Attention;
  readonly #embedding: Embedding;
  readonly #tokens: number;

  constructor(
    readonly model: ModelMemory,
    readonly plan: DecoderPlan,
    readonly config: ModelConfig,
    /** cos and sin of every position and pair of a head. */
    readonly turns: GpuMemory,
    readonly sequences: number,
    readonly window: number,
  ) {
    this.#tokens = sequences * window;
    this.memory = allocateStep(model.compute, plan, sequences, window);
    const { logits, parts, scores, scoresGradient } = this.memory;
    this.outputs = { logits, rows: this.#tokens, columns: plan.head.rows, stride: plan.head.rows };
    this.#operations = new Operations(model, parts, this.#tokens);
    const shape = { sequences, positions: window, headDim: config.headDim };
    this.#attention = new Attention(this.#operations, shape, scores, scoresGradient);
    this.#embedding = new Embedding(this.#operations, plan.embedding, this.memory.tokens);
  }

  [Symbol.dispose](): void {
    for (const memory of this.memory.all) this.model.compute.device.free(memory);
  }

  forward(): void {
    const { plan, memory } = this;
    this.#embedding.forward(memory.blocks[0].input);
    for (const [layer, block] of plan.blocks.entries()) {
      this.#forwardBlock(block, memory.blocks[layer], memory.blocks[layer + 1]?.input ?? memory.last);
    }
    this.#norm(plan.finalNorm.offset, memory.last, memory.lastNormed, memory.lastInverse);
    this.#operations.linear(memory.lastNormed, plan.head, memory.logits);
  }

  loss(): void {
    const { memory, model, plan } = this;
    const { columns: classes, stride, rows } = this.outputs;
    this.#operations.dispatch(
      crossEntropy,
      { classes, stride, rows, lossOffset: plan.length },
      { logits: memory.logits, losses: model.gradients, labels: memory.labels },
      [Math.min(rows, 32_768), Math.ceil(rows / 32_768)],
    );
  }

  backward(places: TokenPlaces): void {
    const { plan, memory } = this;
    const { head, embedding } = plan;
    const { logits, stream, lastNormed, normedGradient } = memory;
    this.#operations.weightGradient(logits, head, lastNormed);
    this.#operations.throughWeight(logits, head, normedGradient);
    this.#normBackward(plan.finalNorm.offset, memory.last, memory.lastInverse, false);
    for (let layer = plan.blocks.length - 1; layer >= 0; layer--) {
      this.#backwardBlock(plan.blocks[layer], memory.blocks[layer]);
    }
    // A table that is no head has no gradient yet.
    if (head !== embedding) this.#operations.clearGradient(embedding);
    this.#embedding.backward(stream, places, normedGradient);
  }

  #forwardBlock(block: BlockPlan, memory: BlockMemory, output: GpuMemory): void {
    const { input, middle, normed, mlpNormed, qkv, mixed, gateUp, hidden } = memory;
    this.#norm(block.inputNorm.offset, input, normed, memory.inverse);
    this.#operations.linear(normed, block.qkv, qkv);
    this.#rotate(block, qkv, 1);
    this.#attention.forward(block, block, qkv, mixed);
    this.#operations.linear(mixed, block.output, middle, input);
    this.#norm(block.mlpNorm.offset, middle, mlpNormed, memory.mlpInverse);
    this.#operations.linear(mlpNormed, block.gateUp, gateUp);
    const width = block.down.cols;
    this.#operations.elements(gated, { count: this.#tokens * width, width }, { hidden, gateUp });
    this.#operations.linear(hidden, block.down, output, middle);
  }

  /** `memory.stream` is the gradient of what the block gave, and becomes that of what it was given. */
  #backwardBlock(block: BlockPlan, memory: BlockMemory): void {
    const { stream, hiddenGradient, wide, normedGradient, mixedGradient } = this.memory;
    const width = block.down.cols;
    this.#operations.weightGradient(stream, block.down, memory.hidden);
    this.#operations.throughWeight(stream, block.down, hiddenGradient);
    this.#operations.elements(
      gatedBackward,
      { count: this.#tokens * width, width },
      { gradient: wide, gateUp: memory.gateUp, outer: hiddenGradient },
    );
    this.#operations.weightGradient(wide, block.gateUp, memory.mlpNormed);
    this.#operations.throughWeight(wide, block.gateUp, normedGradient);
    this.#normBackward(block.mlpNorm.offset, memory.middle, memory.mlpInverse, true);

    this.#operations.weightGradient(stream, block.output, memory.mixed);
    this.#operations.throughWeight(stream, block.output, mixedGradient);
    this.#attention.backward(block, block, memory.qkv, mixedGradient, wide);
    this.#rotate(block, wide, -1);
    this.#operations.weightGradient(wide, block.qkv, memory.normed);
    this.#operations.throughWeight(wide, block.qkv, normedGradient);
    this.#normBackward(block.inputNorm.offset, memory.input, memory.inverse, true);
  }

  #rotate({ queryHeads, kvHeads, qkv }: BlockPlan, x: GpuMemory, direction: 1 | -1): void {
    const pairs = this.config.headDim / 2;
    const heads = queryHeads + kvHeads;
    const count = this.#tokens * heads * pairs;
    const params = { count, pairs, heads, stride: qkv.rows, positions: this.window, direction };
    this.#operations.elements(rotate, params, { x, turns: this.turns });
  }

  #norm(weight: number, x: GpuMemory, normed: GpuMemory, inverse: GpuMemory): void {
    const { model, config, plan } = this;
    const params = { width: plan.embedding.cols, weight, epsilon: config.rmsNormEpsilon };
    this.#operations.dispatch(rmsNorm, params, { normed, inverse, x, weights: model.weights }, [this.#tokens]);
  }

  /** From `memory.normedGradient` to the gradient of the weight, and to `memory.stream` or on top of it. */
  #normBackward(weight: number, x: GpuMemory, inverse: GpuMemory, accumulate: boolean): void {
    const { stream, normedGradient: outer } = this.memory;
    const width = this.plan.embedding.cols;
    this.#operations.sumRows(rmsNormWeight, { outer, x, inverse }, width, weight);
    this.#operations.dispatch(
      rmsNormBackward,
      { width, weight, accumulate: accumulate ? 1 : 0 },
      { gradient: stream, outer, x, inverse, weights: this.model.weights },
      [this.#tokens],
    );
  }
}
