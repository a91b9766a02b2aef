import type { ModelConfig } from "../../../io/index.js";
import type { Compute, GpuMemory, Kernel } from "../../../kernels/index.js";
import { addToRows, gated, gatedBackward, gridOf, lookUp, rotate } from "./elementKernels.js";
import { allocateStep, type BlockMemory, queryWidth, type StepMemory } from "./memory.js";
import type { BlockPlan, DecoderPlan } from "./plan.js";
import { Products } from "./products.js";
import {
  causalSoftmax,
  causalSoftmaxBackward,
  crossEntropy,
  rmsNorm,
  rmsNormBackward,
  rmsNormWeight,
} from "./rowKernels.js";

/** Rows that one part of a norm's gradient adds up. */
const rowsPerPart = 128;

/**
 * The loss of a decoder and its gradient as GPU dispatches written out by hand: forward, then backward through the same
 * buffers. What attention weights were is computed again on the way back rather than kept for every block.
 */
export class DecoderStep {
  readonly memory: StepMemory;
  readonly #products: Products;
  readonly #tokens: number;

  constructor(
    readonly compute: Compute,
    readonly plan: DecoderPlan,
    readonly config: ModelConfig,
    /** All parameters, by `plan.offsets`; gradients lie alike, with the loss of every token behind them. */
    readonly weights: GpuMemory,
    readonly gradients: GpuMemory,
    /** cos and sin of every position and pair of a head. */
    readonly turns: GpuMemory,
    readonly sequences: number,
    readonly window: number,
  ) {
    this.#tokens = sequences * window;
    this.memory = allocateStep(compute, plan, sequences, window);
    this.#products = new Products(compute.recorder, this.memory.parts);
  }

  [Symbol.dispose](): void {
    for (const memory of this.memory.all) this.compute.device.free(memory);
  }

  /** From `memory.tokens` to `memory.logits`. */
  forward(): void {
    const { plan, memory, weights } = this;
    const width = plan.embedding.cols;
    this.#run(
      lookUp,
      { count: (this.#tokens * width) / 4, width: width / 4, table: plan.embedding.offset / 4 },
      { x: memory.blocks[0].input, weights, tokens: memory.tokens },
    );
    for (const [layer, block] of plan.blocks.entries()) {
      this.#forwardBlock(block, memory.blocks[layer], memory.blocks[layer + 1]?.input ?? memory.last);
    }
    this.#norm(plan.finalNorm.offset, memory.last, memory.lastNormed, memory.lastInverse);
    this.#linear(memory.lastNormed, width, plan.head, memory.logits);
  }

  /** The loss of every token behind the gradients; logits become their gradient. */
  loss(): void {
    const { memory, gradients, plan } = this;
    const params = { classes: plan.head.rows, rows: this.#tokens, lossOffset: plan.length };
    this.compute.recorder.makeRoom(1, 0);
    this.compute.recorder.run(
      crossEntropy,
      params,
      { logits: memory.logits, losses: gradients, labels: memory.labels },
      [Math.min(this.#tokens, 32_768), Math.ceil(this.#tokens / 32_768)],
    );
  }

  /** After `forward` and `loss`. @param distinct tokens that occur, as `memory.starts` lists them */
  backward(distinct: number): void {
    const { plan, memory, gradients } = this;
    const { head, embedding } = plan;
    const width = embedding.cols;
    const { logits, stream, lastNormed, normedGradient } = memory;
    this.#products.recordOverTokens(
      this.#tokens,
      { memory: logits, stride: head.rows, columns: head.rows },
      { memory: lastNormed, stride: width, columns: width },
      gradients,
      head.offset,
    );
    this.#throughWeight(logits, head.rows, head, normedGradient);
    this.#normBackward(plan.finalNorm.offset, memory.last, memory.lastInverse, false);
    for (let layer = plan.blocks.length - 1; layer >= 0; layer--) {
      this.#backwardBlock(plan.blocks[layer], memory.blocks[layer]);
    }
    // A table that is no head has no gradient yet.
    if (head !== embedding) this.#products.addUp(0, embedding.rows * width, gradients, embedding.offset);
    this.#run(
      addToRows,
      { count: (distinct * width) / 4, width: width / 4, table: embedding.offset / 4 },
      { gradients, x: stream, order: memory.order, starts: memory.starts },
    );
  }

  #forwardBlock(block: BlockPlan, memory: BlockMemory, output: GpuMemory): void {
    const width = this.plan.embedding.cols;
    const { input, middle, normed, mlpNormed, qkv, mixed, gateUp, hidden } = memory;
    this.#norm(block.inputNorm.offset, input, normed, memory.inverse);
    this.#linear(normed, width, block.qkv, qkv);
    this.#rotate(block, qkv, 1);
    this.#attentionWeights(block, qkv);
    const { heads, value, scores } = this.#attention(block);
    this.#products.record({
      ...heads,
      layout: "nn",
      columns: this.config.headDim,
      depth: this.window,
      a: { ...scores, memory: this.memory.scores },
      b: { ...value, memory: qkv },
      c: { ...this.#mixedFactor(block), memory: mixed },
      causal: "left",
    });
    this.#linear(mixed, queryWidth(block), block.output, middle, input);
    this.#norm(block.mlpNorm.offset, middle, mlpNormed, memory.mlpInverse);
    this.#linear(mlpNormed, width, block.gateUp, gateUp);
    const wide = block.down.cols;
    this.#run(gated, { count: this.#tokens * wide, width: wide }, { hidden, gateUp });
    this.#linear(hidden, wide, block.down, output, middle);
  }

  /** `memory.stream` is the gradient of what the block gave, and becomes that of what it was given. */
  #backwardBlock(block: BlockPlan, memory: BlockMemory): void {
    const { stream, hiddenGradient, wide, normedGradient, mixedGradient } = this.memory;
    const hiddenWidth = block.down.cols;
    this.#weightGradient(stream, block.down, memory.hidden);
    this.#throughWeight(stream, block.down.rows, block.down, hiddenGradient);
    this.#run(
      gatedBackward,
      { count: this.#tokens * hiddenWidth, width: hiddenWidth },
      { gradient: wide, gateUp: memory.gateUp, outer: hiddenGradient },
    );
    this.#weightGradient(wide, block.gateUp, memory.mlpNormed);
    this.#throughWeight(wide, block.gateUp.rows, block.gateUp, normedGradient);
    this.#normBackward(block.mlpNorm.offset, memory.middle, memory.mlpInverse, true);

    this.#weightGradient(stream, block.output, memory.mixed);
    this.#throughWeight(stream, block.output.rows, block.output, mixedGradient);
    this.#attentionBackward(block, memory.qkv);
    this.#weightGradient(wide, block.qkv, memory.normed);
    this.#throughWeight(wide, block.qkv.rows, block.qkv, normedGradient);
    this.#normBackward(block.inputNorm.offset, memory.input, memory.inverse, true);
  }

  /** From the gradient of the mixed heads to that of queries, keys and values before they were turned, in `memory.wide`. */
  #attentionBackward(block: BlockPlan, qkv: GpuMemory): void {
    const { window, config, sequences } = this;
    const { scores: weights, scoresGradient, mixedGradient, wide } = this.memory;
    const { headDim } = config;
    const { queryHeads, kvHeads } = block;
    const { heads, query, key, value, scores } = this.#attention(block);
    const scale = 1 / Math.sqrt(headDim);
    const outer = this.#mixedFactor(block);
    this.#attentionWeights(block, qkv);
    this.#products.record({
      ...heads,
      layout: "nt",
      columns: window,
      depth: headDim,
      a: { ...outer, memory: mixedGradient },
      b: { ...value, memory: qkv },
      c: { ...scores, memory: scoresGradient },
      causal: "result",
    });
    const group = queryHeads / kvHeads;
    /** Σ over the query heads of a key head of (matrix of positions)ᵀ · (rows of queries). */
    const overQueries = (
      matrix: GpuMemory,
      rows: { memory: GpuMemory; stride: number; batch: number; head: number },
      target: { stride: number; offset: number; batch: number; head: number },
      alpha: number,
    ) => {
      for (let member = 0; member < group; member++) {
        this.#products.record({
          layout: "tn",
          rows: window,
          columns: headDim,
          depth: window,
          a: { ...scores, memory: matrix, offset: member * scores.head, head: group * scores.head },
          b: { ...rows, offset: member * rows.head, head: group * rows.head },
          c: { ...target, memory: wide },
          alpha,
          base: member === 0 ? undefined : wide,
          batches: sequences,
          heads: kvHeads,
          causal: "leftTransposed",
        });
      }
    };
    overQueries(weights, { ...outer, memory: mixedGradient }, value, 1);
    this.compute.recorder.makeRoom(1, 0);
    this.compute.recorder.run(
      causalSoftmaxBackward,
      { positions: window, window: block.window },
      { gradient: scoresGradient, weights },
      [window, sequences * queryHeads],
    );
    overQueries(scoresGradient, { ...query, memory: qkv }, key, scale);
    this.#products.record({
      ...heads,
      layout: "nn",
      columns: headDim,
      depth: window,
      a: { ...scores, memory: scoresGradient },
      b: { ...key, memory: qkv },
      c: { ...query, memory: wide },
      alpha: scale,
      causal: "left",
    });
    this.#rotate(block, wide, -1);
  }

  /** softmax(q·kᵀ / √headDim) of every head into `memory.scores`. */
  #attentionWeights(block: BlockPlan, qkv: GpuMemory): void {
    const { window, sequences, config } = this;
    const { heads, query, key, scores } = this.#attention(block);
    this.#products.record({
      ...heads,
      layout: "nt",
      columns: window,
      depth: config.headDim,
      a: { ...query, memory: qkv },
      b: { ...key, memory: qkv },
      c: { ...scores, memory: this.memory.scores },
      alpha: 1 / Math.sqrt(config.headDim),
      causal: "result",
    });
    this.compute.recorder.makeRoom(1, 0);
    this.compute.recorder.run(
      causalSoftmax,
      { positions: window, window: block.window },
      { scores: this.memory.scores },
      [window, sequences * block.queryHeads],
    );
  }

  /** How the heads of a block lie in the row of queries, keys and values, and their matrices of positions. */
  #attention({ queryHeads, kvHeads, qkv }: BlockPlan) {
    const { window, sequences, config } = this;
    const row = { stride: qkv.rows, batch: window * qkv.rows, head: config.headDim };
    return {
      heads: { rows: window, batches: sequences, heads: queryHeads, bGroup: queryHeads / kvHeads },
      query: { ...row, offset: 0 },
      key: { ...row, offset: queryHeads * config.headDim },
      value: { ...row, offset: (queryHeads + kvHeads) * config.headDim },
      scores: { stride: window, batch: queryHeads * window * window, head: window * window },
    };
  }

  /** The heads' outputs side by side. */
  #mixedFactor(block: BlockPlan) {
    const stride = queryWidth(block);
    return { stride, batch: this.window * stride, head: this.config.headDim };
  }

  /** y = x·Wᵀ (+ base). */
  #linear(x: GpuMemory, width: number, weight: BlockPlan["down"], y: GpuMemory, base?: GpuMemory): void {
    this.#products.record({
      layout: "nt",
      rows: this.#tokens,
      columns: weight.rows,
      depth: width,
      a: { memory: x, stride: width },
      b: { memory: this.weights, stride: weight.cols, offset: weight.offset },
      c: { memory: y, stride: weight.rows },
      base,
    });
  }

  /** dX = dY·W. */
  #throughWeight(outer: GpuMemory, stride: number, weight: BlockPlan["down"], target: GpuMemory): void {
    this.#products.record({
      layout: "nn",
      rows: this.#tokens,
      columns: weight.cols,
      depth: weight.rows,
      a: { memory: outer, stride },
      b: { memory: this.weights, stride: weight.cols, offset: weight.offset },
      c: { memory: target, stride: weight.cols },
    });
  }

  /** dW = dYᵀ·X. */
  #weightGradient(outer: GpuMemory, weight: BlockPlan["down"], x: GpuMemory): void {
    this.#products.recordOverTokens(
      this.#tokens,
      { memory: outer, stride: weight.rows, columns: weight.rows },
      { memory: x, stride: weight.cols, columns: weight.cols },
      this.gradients,
      weight.offset,
    );
  }

  #rotate({ queryHeads, kvHeads, qkv }: BlockPlan, x: GpuMemory, direction: 1 | -1): void {
    const pairs = this.config.headDim / 2;
    const heads = queryHeads + kvHeads;
    const count = this.#tokens * heads * pairs;
    const params = { count, pairs, heads, stride: qkv.rows, positions: this.window, direction };
    this.#run(rotate, params, { x, turns: this.turns });
  }

  #norm(weight: number, x: GpuMemory, normed: GpuMemory, inverse: GpuMemory): void {
    const { weights, config, plan } = this;
    const params = { width: plan.embedding.cols, weight, epsilon: config.rmsNormEpsilon };
    this.compute.recorder.makeRoom(1, 0);
    this.compute.recorder.run(rmsNorm, params, { normed, inverse, x, weights }, [this.#tokens]);
  }

  /** From `memory.normedGradient` to the gradient of the weight, and to `memory.stream` or on top of it. */
  #normBackward(weight: number, x: GpuMemory, inverse: GpuMemory, accumulate: boolean): void {
    const { weights, plan, gradients } = this;
    const { stream, normedGradient: outer, parts } = this.memory;
    const width = plan.embedding.cols;
    const { recorder } = this.compute;
    const count = Math.ceil(this.#tokens / rowsPerPart);
    recorder.makeRoom(2, 0);
    recorder.run(rmsNormWeight, { width, rows: this.#tokens, rowsPerPart }, { parts, outer, x, inverse }, [
      Math.ceil(width / 64),
      count,
    ]);
    this.#products.addUp(count, width, gradients, weight);
    recorder.run(
      rmsNormBackward,
      { width, weight, accumulate: accumulate ? 1 : 0 },
      { gradient: stream, outer, x, inverse, weights },
      [this.#tokens],
    );
  }

  /** An element-wise kernel over `params.count` elements. */
  #run<P extends string, B extends string>(
    kernel: Kernel<P | "count", B>,
    params: Record<NoInfer<P> | "count", number>,
    buffers: Record<NoInfer<B>, GpuMemory>,
  ): void {
    this.compute.recorder.makeRoom(1, 0);
    this.compute.recorder.run(kernel, params, buffers, gridOf(params.count));
  }
}
