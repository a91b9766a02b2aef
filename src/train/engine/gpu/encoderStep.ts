import type { GpuMemory } from "../../../kernels/index.js";
import { type EncoderConfig, encoderEpsilon } from "../../models/encoderParameters.js";
import { Attention, type Sight } from "./attention.js";
import { addRepeated, reluBackward } from "./elementKernels.js";
import { allocateTokens, Embedding, type TokenMemory, type TokenPlaces } from "./embedding.js";
import type { EncoderBlockPlan, EncoderPlan } from "./encoderPlan.js";
import type { GpuStep, Outputs } from "./gpuObjective.js";
import { type ModelMemory, Operations } from "./operations.js";
import type { Place } from "./plan.js";
import { partsLength } from "./products.js";
import { crossEntropy, layerNorm, layerNormBackward, layerNormWeights } from "./rowKernels.js";

/** What the backward pass wants to see again of a block; f32, one row per token. */
interface BlockMemory {
  input: GpuMemory;
  qkv: GpuMemory;
  /** Input and attention added up, then brought to mean 0 and variance 1, whose factor is kept; and the norm of it. */
  attended: GpuMemory;
  attendedInverse: GpuMemory;
  middle: GpuMemory;
  hidden: GpuMemory;
  /** The same behind the feed-forward part; the norm of it is the next block's input. */
  fed: GpuMemory;
  fedInverse: GpuMemory;
}

interface StepMemory {
  tokens: TokenMemory;
  labels: GpuMemory;
  blocks: readonly BlockMemory[];
  last: GpuMemory;
  logits: GpuMemory;
  /** Gradients of what a norm gave, of what it was given, and of a block's wide insides. */
  outer: GpuMemory;
  stream: GpuMemory;
  wide: GpuMemory;
}

const noFloor = -3.4e38;

/** The loss of an encoder that classifies and its gradient, as GPU dispatches written out by hand; see `encoder`. */
export class EncoderStep implements GpuStep {
  readonly memory: StepMemory;
  readonly outputs: Outputs;
  readonly #all: GpuMemory[] = [];
  /** On rows of tokens, and on rows of whole texts. */
  readonly #operations: Operations;
  readonly #head: Operations;
  readonly #attention: Attention;
  readonly #embedding: Embedding;
  readonly #sight: Sight;

  constructor(
    readonly model: ModelMemory,
    readonly plan: EncoderPlan,
    readonly config: EncoderConfig,
    /** [length, hiddenSize] */
    readonly positions: GpuMemory,
    readonly sequences: number,
  ) {
    const { hiddenSize, feedForwardSize, heads, length } = config;
    const tokens = sequences * length;
    const allocate = (words: number, label: string) => {
      const memory = model.compute.allocate(words, label);
      this.#all.push(memory);
      return memory;
    };
    const rows = (width: number, label: string) => allocate(tokens * width, label);
    const places = allocateTokens(model.compute, tokens);
    this.#all.push(...Object.values(places));
    this.memory = {
      tokens: places,
      labels: allocate(sequences, "labels"),
      blocks: plan.blocks.map(() => ({
        input: rows(hiddenSize, "input"),
        qkv: rows(3 * hiddenSize, "qkv"),
        attended: rows(hiddenSize, "attended"),
        attendedInverse: rows(1, "attended inverse"),
        middle: rows(hiddenSize, "middle"),
        hidden: rows(feedForwardSize, "hidden"),
        fed: rows(hiddenSize, "fed"),
        fedInverse: rows(1, "fed inverse"),
      })),
      last: rows(hiddenSize, "last"),
      logits: allocate(Math.ceil(sequences / 4) * 4 * plan.classifier.rows, "logits"),
      outer: rows(hiddenSize, "gradient of the normed"),
      stream: rows(hiddenSize, "gradient of the sum"),
      wide: rows(Math.max(3 * hiddenSize, feedForwardSize), "wide gradient"),
    };
    const { logits } = this.memory;
    this.outputs = { logits, rows: sequences, columns: config.classes, stride: plan.classifier.rows };
    const parts = allocate(partsLength, "parts");
    this.#operations = new Operations(model, parts, tokens);
    this.#head = new Operations(model, parts, sequences);
    this.#attention = new Attention(
      this.#operations,
      { sequences, positions: length, headDim: hiddenSize / heads },
      rows(heads * length, "scores"),
      rows(heads * length, "gradient of scores"),
    );
    this.#sight = { tokens: places.tokens };
    this.#embedding = new Embedding(this.#operations, plan.embedding, places);
  }

  [Symbol.dispose](): void {
    for (const memory of this.#all) this.model.compute.device.free(memory);
  }

  forward(): void {
    const { plan, memory } = this;
    const [{ input }] = memory.blocks;
    this.#embedding.forward(input);
    const count = (this.#operations.rows * plan.embedding.cols) / 4;
    this.#operations.elements(
      addRepeated,
      { count, offset: 0, period: count / this.sequences, floor: noFloor },
      { x: input, table: this.positions },
    );
    for (const [b, block] of plan.blocks.entries()) {
      this.#forwardBlock(block, memory.blocks[b], memory.blocks[b + 1]?.input ?? memory.last);
    }
    this.#head.longLinear(memory.last, plan.classifier, memory.logits);
    this.#addBias(this.#head, memory.logits, plan.classifierBias);
  }

  loss(): void {
    const { memory, model, plan } = this;
    const { columns: classes, stride, rows } = this.outputs;
    this.#head.dispatch(
      crossEntropy,
      { classes, stride, rows, lossOffset: plan.length },
      { logits: memory.logits, losses: model.gradients, labels: memory.labels },
      [rows],
    );
  }

  backward(places: TokenPlaces): void {
    const { plan, memory } = this;
    const { logits, outer } = memory;
    this.#head.biasGradient(logits, plan.classifierBias);
    this.#head.weightGradient(logits, plan.classifier, memory.last);
    this.#head.throughWeight(logits, plan.classifier, outer);
    for (let b = plan.blocks.length - 1; b >= 0; b--) this.#backwardBlock(plan.blocks[b], memory.blocks[b]);
    this.#operations.clearGradient(plan.embedding);
    this.#embedding.backward(outer, places, memory.stream);
  }

  #forwardBlock(block: EncoderBlockPlan, memory: BlockMemory, output: GpuMemory): void {
    const { input, qkv, attended, middle, hidden, fed } = memory;
    this.#operations.linear(input, block.qkv, qkv);
    this.#addBias(this.#operations, qkv, block.qkvBias);
    this.#attention.forward(this.#heads, this.#sight, qkv, attended, input);
    this.#norm(block.attentionNorm, attended, middle, memory.attendedInverse);
    this.#operations.linear(middle, block.up, hidden);
    this.#addBias(this.#operations, hidden, block.upBias, 0);
    this.#operations.linear(hidden, block.down, fed, middle);
    this.#addBias(this.#operations, fed, block.downBias);
    this.#norm(block.outputNorm, fed, output, memory.fedInverse);
  }

  /** `memory.outer` is the gradient of what the block gave, and becomes that of what it was given. */
  #backwardBlock(block: EncoderBlockPlan, memory: BlockMemory): void {
    const { outer, stream, wide } = this.memory;
    this.#normBackward(block.outputNorm, memory.fed, memory.fedInverse);
    this.#linearBackward(stream, block.down, block.downBias, memory.hidden);
    this.#operations.throughWeight(stream, block.down, wide);
    const count = (this.#operations.rows * block.down.cols) / 4;
    this.#operations.elements(reluBackward, { count }, { gradient: wide, result: memory.hidden });
    this.#linearBackward(wide, block.up, block.upBias, memory.middle);
    this.#operations.throughWeight(wide, block.up, outer, stream);

    this.#normBackward(block.attentionNorm, memory.attended, memory.attendedInverse);
    this.#attention.backward(this.#heads, this.#sight, memory.qkv, stream, wide);
    this.#linearBackward(wide, block.qkv, block.qkvBias, memory.input);
    this.#operations.throughWeight(wide, block.qkv, outer, stream);
  }

  get #heads() {
    return { queryHeads: this.config.heads, kvHeads: this.config.heads };
  }

  #addBias(operations: Operations, x: GpuMemory, bias: Place, floor = noFloor): void {
    const period = bias.rows / 4;
    const params = { count: operations.rows * period, offset: bias.offset / 4, period, floor };
    operations.elements(addRepeated, params, { x, table: this.model.weights });
  }

  #linearBackward(outer: GpuMemory, weight: Place, bias: Place, x: GpuMemory): void {
    this.#operations.biasGradient(outer, bias);
    this.#operations.weightGradient(outer, weight, x);
  }

  #norm({ weight, bias }: EncoderBlockPlan["outputNorm"], x: GpuMemory, normed: GpuMemory, inverse: GpuMemory): void {
    const params = { width: weight.rows, weight: weight.offset, bias: bias.offset, epsilon: encoderEpsilon };
    const buffers = { normed, inverse, x, weights: this.model.weights };
    this.#operations.dispatch(layerNorm, params, buffers, [this.#operations.rows]);
  }

  /** From `memory.outer` to the gradients of weight and bias, which are neighbours, and to `memory.stream`. */
  #normBackward({ weight }: EncoderBlockPlan["outputNorm"], standard: GpuMemory, inverse: GpuMemory): void {
    const { outer, stream } = this.memory;
    const width = weight.rows;
    this.#operations.sumRows(layerNormWeights, { outer, standard }, width, weight.offset, 2);
    this.#operations.dispatch(
      layerNormBackward,
      { width, weight: weight.offset },
      { gradient: stream, outer, standard, inverse, weights: this.model.weights },
      [this.#operations.rows],
    );
  }
}
