import type { Compute, GpuMemory } from "../../../kernels/index.js";
import type { Batch, LossAndGradients } from "../../objective.js";
import type { ResidentObjective, ResidentOptions, ResidentRun } from "../../resident.js";
import type { FloatArray, ParameterInfo, Values } from "../../values.js";
import { placesOf, type TokenMemory, type TokenPlaces } from "./embedding.js";
import type { ModelMemory } from "./operations.js";
import type { Plan } from "./plan.js";
import { GpuResidentRun } from "./residentRun.js";

/** What the loss is of: rows of logits, `stride` f32 apart. */
export interface Outputs {
  logits: GpuMemory;
  rows: number;
  columns: number;
  stride: number;
}

/** Loss and gradient of a model for one shape of batch, as recorded dispatches. */
export interface GpuStep extends Disposable {
  readonly sequences: number;
  readonly memory: {
    tokens: TokenMemory;
    labels: GpuMemory;
  };
  readonly outputs: Outputs;
  /** From `memory.tokens` to the logits. */
  forward(): void;
  /** The loss of every row behind the gradients; logits become their gradient. */
  loss(): void;
  /** After `forward` and `loss`. @param places those that `memory.tokens` holds */
  backward(places: TokenPlaces): void;
}

/** A model whose step is written by hand. */
export interface GpuModel {
  parameters: readonly ParameterInfo[];
  plan: Plan;
  /** Tokens of every sequence. */
  window: number;
  /** A step for batches of so many sequences. */
  begin(memory: ModelMemory, sequences: number): GpuStep;
}

/** The objective of such a model: many times as fast as the traced one, which is its oracle. */
export class GpuObjective implements ResidentObjective {
  readonly #memory: ModelMemory;
  readonly #readBack: GpuMemory;
  #step: GpuStep | undefined;

  constructor(
    readonly compute: Compute,
    readonly model: GpuModel,
  ) {
    const { length } = model.plan;
    this.#memory = {
      compute,
      weights: compute.allocate(length, "weights"),
      gradients: compute.allocate(length + maxRows, "gradients"),
    };
    this.#readBack = compute.allocateReadBack(length + maxRows, "gradients on the host");
  }

  get parameters(): readonly ParameterInfo[] {
    return this.model.parameters;
  }

  async lossAndGradients(weights: Values, batch: Batch): Promise<LossAndGradients> {
    this.#upload(weights);
    this.#record(batch);
    const { length, offsets } = this.model.plan;
    const values = await this.#read(0, length + batch.label.values.length);
    const gradients = new Map<string, FloatArray>();
    for (const { name, shape } of this.parameters) {
      const offset = offsets.get(name)!;
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
    return mean(await this.#read(this.model.plan.length, batch.label.values.length));
  }

  async predict(weights: Values, batch: Batch): Promise<FloatArray> {
    this.#upload(weights);
    return this.#predict(batch);
  }

  startResident(options: ResidentOptions): ResidentRun {
    const { compute } = this;
    const { plan } = this.model;
    return new GpuResidentRun(
      {
        ...this.#memory,
        plan,
        record: (batch) => this.#record(batch),
        predict: (batch) => this.#predict(batch),
        readLoss: async (batch, counters, words) => {
          compute.recorder.copy(counters, 0, this.#readBack, 0, 4 * words);
          const values = await this.#read(plan.length, batch.label.values.length, words);
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
    const places = placesOf(batch.tokens.values, this.model.plan.embedding.rows);
    this.#write(step.memory.tokens.order, places.order);
    this.#write(step.memory.tokens.starts, places.starts);
    step.forward();
    step.loss();
    step.backward(places);
  }

  /** Logits at the weights that are on the device. */
  async #predict(batch: Batch): Promise<Float32Array> {
    const step = this.#prepare(batch);
    step.forward();
    const { logits, rows, columns, stride } = step.outputs;
    const values = new Float32Array(await this.compute.recorder.read(logits, 0, 4 * rows * stride));
    return stride === columns ? values : values.filter((_, i) => i % stride < columns);
  }

  #upload(weights: Values): void {
    for (const [name, offset] of this.model.plan.offsets) {
      this.#write(this.#memory.weights, weights.get(name)! as Float32Array<ArrayBuffer>, offset);
    }
  }

  #prepare({ tokens, label }: Batch): GpuStep {
    const sequences = tokens.values.length / this.model.window;
    if (this.#step?.sequences !== sequences) {
      this.#step?.[Symbol.dispose]();
      this.#step = this.model.begin(this.#memory, sequences);
    }
    this.#write(this.#step.memory.tokens.tokens, tokens.values as Int32Array<ArrayBuffer>);
    this.#write(this.#step.memory.labels, label.values as Int32Array<ArrayBuffer>);
    return this.#step;
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
    recorder.copy(this.#memory.gradients, 4 * offset, this.#readBack, 4 * before, 4 * length);
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
/** Rows of a batch, at most: a dispatch has that many workgroups. */
const maxRows = 65_535;

function mean(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}
