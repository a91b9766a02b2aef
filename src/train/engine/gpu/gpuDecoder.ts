import type { ModelConfig } from "../../../io/index.js";
import { type Compute, type GpuMemory, openCompute } from "../../../kernels/index.js";
import { ropeFrequencies } from "../../../model/index.js";
import type { Batch, LossAndGradients, Objective } from "../../objective.js";
import type { ResidentObjective, ResidentOptions, ResidentRun } from "../../resident.js";
import type { FloatArray, ParameterInfo, Values } from "../../values.js";
import { DecoderStep } from "./decoderStep.js";
import { type DecoderPlan, planDecoder } from "./plan.js";
import { GpuResidentRun } from "./residentRun.js";

/**
 * The next-token loss of a Llama-like decoder on a GPU, forward and backward written out by hand: many times as fast there as
 * the traced one, which is its oracle. @returns undefined for a decoder that it does not do (`planDecoder`)
 * @param window tokens of every sequence
 * @throws DeviceError when there is no GPU
 */
export async function gpuDecoder(
  config: ModelConfig,
  parameters: readonly ParameterInfo[],
  window: number,
): Promise<Objective | undefined> {
  const plan = planDecoder(config, parameters, window);
  return plan && new GpuDecoder(await openCompute(), plan, config, parameters, window);
}

class GpuDecoder implements ResidentObjective {
  readonly #weights: GpuMemory;
  readonly #gradients: GpuMemory;
  readonly #turns: GpuMemory;
  readonly #readBack: GpuMemory;
  #step: DecoderStep | undefined;

  constructor(
    readonly compute: Compute,
    readonly plan: DecoderPlan,
    readonly config: ModelConfig,
    readonly parameters: readonly ParameterInfo[],
    readonly window: number,
  ) {
    this.#weights = compute.allocate(plan.length, "weights");
    this.#gradients = compute.allocate(plan.length + maxTokens, "gradients");
    this.#readBack = compute.allocateReadBack(plan.length + maxTokens, "gradients on the host");
    const turns = turnsOf(config, window);
    this.#turns = compute.allocate(turns.length, "turns");
    this.#write(this.#turns, turns);
  }

  async lossAndGradients(weights: Values, batch: Batch): Promise<LossAndGradients> {
    this.#upload(weights);
    this.#record(batch);
    const { length } = this.plan;
    const values = await this.#read(0, length + batch.tokens.values.length);
    const gradients = new Map<string, FloatArray>();
    for (const { name, shape } of this.parameters) {
      const offset = this.plan.offsets.get(name)!;
      gradients.set(name, values.subarray(offset, offset + shape.reduce((a, b) => a * b, 1)));
    }
    const loss = mean(values.subarray(length));
    return { loss, gradients, measured: new Map([["prediction", Float32Array.of(loss)]]) };
  }

  async loss(weights: Values, batch: Batch): Promise<number> {
    this.#upload(weights);
    const step = this.#prepare(batch);
    step.forward();
    step.loss();
    return mean(await this.#read(this.plan.length, batch.tokens.values.length));
  }

  async predict(weights: Values, batch: Batch): Promise<FloatArray> {
    this.#upload(weights);
    const step = this.#prepare(batch);
    step.forward();
    const { recorder } = this.compute;
    const byteLength = 4 * batch.tokens.values.length * this.plan.head.rows;
    return new Float32Array(await recorder.read(step.memory.logits, 0, byteLength));
  }

  startResident(options: ResidentOptions): ResidentRun {
    const { compute, plan } = this;
    return new GpuResidentRun(
      {
        compute,
        plan,
        weights: this.#weights,
        gradients: this.#gradients,
        record: (batch) => this.#record(batch),
        readLoss: async (batch, counters, words) => {
          compute.recorder.copy(counters, 0, this.#readBack, 0, 4 * words);
          const values = await this.#read(plan.length, batch.tokens.values.length, words);
          return { loss: mean(values.subarray(words)), counts: new Uint32Array(values.buffer, 0, words) };
        },
      },
      options,
    );
  }

  [Symbol.dispose](): void {
    this.compute[Symbol.dispose]();
  }

  /** Loss and gradients at the weights that are on the device. */
  #record(batch: Batch): void {
    const step = this.#prepare(batch);
    const distinct = this.#listPlaces(batch, step);
    step.forward();
    step.loss();
    step.backward(distinct);
  }

  #upload(weights: Values): void {
    for (const [name, offset] of this.plan.offsets) {
      this.#write(this.#weights, weights.get(name)! as Float32Array<ArrayBuffer>, offset);
    }
  }

  #prepare({ tokens, label }: Batch): DecoderStep {
    const sequences = tokens.values.length / this.window;
    if (this.#step?.sequences !== sequences) {
      this.#step?.[Symbol.dispose]();
      this.#step = new DecoderStep(
        this.compute,
        this.plan,
        this.config,
        this.#weights,
        this.#gradients,
        this.#turns,
        sequences,
        this.window,
      );
    }
    this.#write(this.#step.memory.tokens, tokens.values as Int32Array<ArrayBuffer>);
    this.#write(this.#step.memory.labels, label.values as Int32Array<ArrayBuffer>);
    return this.#step;
  }

  /** Lists the places of every token that occurs, by counting. @returns how many do */
  #listPlaces({ tokens }: Batch, { memory }: DecoderStep): number {
    const ids = tokens.values;
    const next = new Uint32Array(this.plan.embedding.rows + 1);
    for (const id of ids) next[id + 1]++;
    const starts: number[] = [];
    for (let id = 0, at = 0; id + 1 < next.length; id++) {
      if (next[id + 1] > 0) starts.push(at, id);
      at += next[id + 1];
      next[id + 1] = at;
    }
    const order = new Uint32Array(ids.length);
    for (const [place, id] of ids.entries()) order[next[id]++] = place;
    this.#write(memory.order, order);
    this.#write(memory.starts, Uint32Array.from([...starts, order.length, 0]));
    return starts.length / 2;
  }

  #write(memory: GpuMemory, values: Float32Array | Int32Array | Uint32Array, offset = 0): void {
    this.compute.device.throwIfGone();
    this.compute.device.gpu.queue.writeBuffer(memory.buffer, 4 * offset, values as Float32Array<ArrayBuffer>);
  }

  /**
   * f32 of the gradients and the losses behind them, after `before` words that were copied already. A buffer of their size is
   * kept: making one anew takes milliseconds.
   */
  async #read(offset: number, length: number, before = 0): Promise<Float32Array> {
    const { device, recorder } = this.compute;
    const byteLength = 4 * (before + length);
    recorder.copy(this.#gradients, 4 * offset, this.#readBack, 4 * before, 4 * length);
    recorder.submit();
    await this.#readBack.buffer.mapAsync(mapRead, 0, byteLength);
    const copy = new Float32Array(this.#readBack.buffer.getMappedRange(0, byteLength).slice(0));
    this.#readBack.buffer.unmap();
    device.throwIfFailed();
    return copy;
  }
}

/** GPUMapMode.READ */
const mapRead = 1;
/** Tokens of a batch, at most: a dispatch has that many workgroups. */
const maxTokens = 65_535;

function mean(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

/** cos and sin, one after the other, of every position and pair of a head. */
function turnsOf({ rope, headDim }: ModelConfig, positions: number): Float32Array {
  const frequencies = ropeFrequencies(rope, headDim);
  const pairs = headDim / 2;
  return Float32Array.from({ length: 2 * positions * pairs }, (_, i) => {
    const angle = Math.floor(i / 2 / pairs) * frequencies[Math.floor(i / 2) % pairs];
    return i % 2 === 0 ? Math.cos(angle) : Math.sin(angle);
  });
}
