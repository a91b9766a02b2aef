import {
  type Compute,
  type CpuOptions,
  type DeviceMemory,
  openCompute,
  type ReadBack,
} from "../../../kernels/internal.js";
import type { Batch, BatchArray, LossAndGradients, Objective } from "../../objective.js";
import type { ResidentObjective, ResidentOptions, ResidentRun } from "../../resident.js";
import type { FloatArray, ParameterInfo, Values } from "../../values.js";
import { DeviceTeacher, type ShownModel, TaughtRows } from "./deviceTeacher.js";
import { placesOf } from "./embedding.js";
import { Memories } from "./memories.js";
import type { ModelMemory } from "./operations.js";
import { DeviceResidentRun } from "./residentRun.js";
import type { View } from "./rooms.js";
import type { Schedule } from "./schedule.js";
import { ScheduledStep } from "./scheduledStep.js";

/** Devices that have the kernels of a schedule. */
export type ScheduleDevice = "webgpu" | "wasm";

/**
 * The loss of a planned model on a device.
 * @param options.teacher learnt from on the same device
 * @throws DeviceError when the device is not there
 */
export async function openDeviceObjective(
  parameters: readonly ParameterInfo[],
  schedule: Schedule,
  device: ScheduleDevice,
  { teacher, ...options }: CpuOptions & { teacher?: ShownModel } = {},
): Promise<Objective> {
  const compute = await openCompute(device, options);
  try {
    return new DeviceObjective(compute, parameters, schedule, teacher && new DeviceTeacher(compute, teacher));
  } catch (error) {
    compute[Symbol.dispose]();
    throw error;
  }
}

/** The objective of a planned model: many times as fast as the traced one, which is its oracle. */
class DeviceObjective implements ResidentObjective {
  readonly #memory: ModelMemory;
  readonly #readBack: ReadBack;
  readonly #tables: readonly DeviceMemory[];
  readonly #taught: TaughtRows;
  /** Present where something is asked for. */
  readonly show?: Objective["show"];
  #step: ScheduledStep | undefined;
  /** Weights that lie on the device, if those of what was shown last: they stay the same, and are uploaded once. */
  #held: Values | undefined;

  constructor(
    readonly compute: Compute,
    readonly parameters: readonly ParameterInfo[],
    readonly schedule: Schedule,
    teacher: DeviceTeacher | undefined,
  ) {
    const { plan, measuredLength, taught, given } = schedule;
    const behind = measuredLength + (taught === undefined ? 1 : 2) * maxRows;
    const { length } = plan;
    this.#taught = new TaughtRows(compute, given, teacher);
    if (schedule.shown.size > 0) this.show = (weights, batch) => this.#show(weights, batch);
    const own = new Memories(compute);
    this.#tables = schedule.tables.map(({ values, label }) => own.filled(values, label));
    this.#memory = {
      compute,
      weights: own.allocate(length, "weights"),
      gradients: own.allocate(length + behind, "gradients"),
    };
    this.#readBack = compute.readBack(length + behind, "gradients on the host");
  }

  get hasTeacher(): boolean {
    return this.#taught.teacher !== undefined;
  }

  async lossAndGradients(weights: Values, batch: Batch): Promise<LossAndGradients> {
    this.#upload(weights);
    this.#record(batch);
    const { length, offsets } = this.schedule.plan;
    const values = await this.#read(0, length + this.#behind);
    const gradients = new Map<string, FloatArray>();
    for (const { name, shape } of this.parameters) {
      const offset = offsets.get(name)!;
      gradients.set(name, values.subarray(offset, offset + shape.reduce((a, b) => a * b, 1)));
    }
    return { gradients, ...this.#lossOf(values.subarray(length)) };
  }

  async loss(weights: Values, batch: Batch): Promise<number> {
    this.#upload(weights);
    const step = this.#prepare(batch);
    step.forward();
    step.loss();
    const { plan, measuredLength } = this.schedule;
    return sum(await this.#read(plan.length + measuredLength, step.outputs.rows)) / step.known;
  }

  async predict(weights: Values, batch: Batch): Promise<FloatArray> {
    this.#upload(weights);
    return this.#predict(batch);
  }

  startResident(options: ResidentOptions): ResidentRun {
    const { plan } = this.schedule;
    return new DeviceResidentRun(
      {
        ...this.#memory,
        plan,
        record: (batch) => this.#record(batch),
        predict: (batch) => this.#predict(batch),
        readLoss: async (counters, words) => {
          this.#readBack.copy(counters, 0, 0, words);
          const values = await this.#read(plan.length, this.#behind, words);
          return { ...this.#lossOf(values.subarray(words)), counts: new Uint32Array(values.buffer, 0, words) };
        },
      },
      options,
    );
  }

  [Symbol.dispose](): void {
    this.compute[Symbol.dispose]();
  }

  /** How many f32 of the batch lie behind the gradients. */
  get #behind(): number {
    const { outputs, isTaught } = this.#step!;
    return this.schedule.measuredLength + (isTaught ? 2 : 1) * outputs.rows;
  }

  /** @param values those behind the gradients */
  #lossOf(values: Float32Array): Pick<LossAndGradients, "loss" | "measured"> {
    const { measured, measuredLength, taught } = this.schedule;
    const { outputs, known, isTaught } = this.#step!;
    const meanOf = (part: number) =>
      sum(values.subarray(measuredLength + part * outputs.rows).subarray(0, outputs.rows)) / known;
    let loss = meanOf(0);
    const found = new Map<string, FloatArray>([["prediction", Float32Array.of(loss)]]);
    if (taught !== undefined && isTaught) loss = (1 - taught.share) * loss + taught.share * meanOf(1);
    for (const { name, offset, length, isPenalty } of measured) {
      if (isPenalty) loss += values[offset];
      else found.set(name, values.slice(offset, offset + length));
    }
    return { loss, measured: found };
  }

  /** Loss and gradients at the weights that are on the device. */
  #record(batch: Batch): void {
    const step = this.#prepare(batch);
    step.taughtBy = this.#taught.of(batch);
    const places = placesOf(batch.tokens.values);
    this.#write(step.tokens.order, places.order);
    this.#write(step.tokens.starts, places.starts);
    step.forward();
    step.loss();
    step.backward(places);
  }

  /** Logits at the weights that are on the device. */
  async #predict(batch: Batch): Promise<Float32Array> {
    const step = this.#prepare(batch);
    step.forward();
    const { logits, classes } = this.schedule;
    return this.#readView(step, { ...logits, width: classes });
  }

  async #show(weights: Values, batch: Batch): Promise<Batch> {
    if (this.#held !== weights) this.#upload(weights);
    const step = this.#prepare(batch);
    this.#held = weights;
    step.forward();
    const found: [string, BatchArray][] = [];
    for (const [name, view] of this.schedule.shown) {
      const values = await this.#readView(step, view);
      found.push([name, { shape: [values.length / view.width, view.width], values }]);
    }
    return Object.fromEntries(found);
  }

  /** The rows of a view, side by side. */
  async #readView(step: ScheduledStep, { room, stride, first, width }: View): Promise<Float32Array> {
    const { rows } = step.outputs;
    const values = new Float32Array(await this.compute.recorder.read(step.memory(room), 0, 4 * rows * stride));
    if (stride === width) return values;
    return values.filter((_, i) => i % stride >= first && i % stride < first + width);
  }

  #upload(weights: Values): void {
    for (const [name, offset] of this.schedule.plan.offsets) {
      this.#write(this.#memory.weights, weights.get(name)! as Float32Array<ArrayBuffer>, offset);
    }
  }

  #prepare({ tokens, label }: Batch): ScheduledStep {
    this.#held = undefined;
    const sequences = tokens.values.length / this.schedule.window;
    if (this.#step?.sequences !== sequences) {
      this.#step?.[Symbol.dispose]();
      this.#step = undefined;
      this.#step = new ScheduledStep(this.#memory, this.schedule, this.#tables, sequences);
    }
    this.#write(this.#step.tokens.tokens, tokens.values as Int32Array<ArrayBuffer>);
    this.#write(this.#step.labels, label.values as Int32Array<ArrayBuffer>);
    this.#step.known = Math.max(
      1,
      (label.values as Int32Array).reduce((known, label) => known + (label < 0 ? 0 : 1), 0),
    );
    this.#step.taughtBy = new Map();
    return this.#step;
  }

  #write(memory: DeviceMemory, values: Float32Array | Int32Array | Uint32Array, offset = 0): void {
    this.compute.write(memory, values, offset);
  }

  /** f32 of the gradients and the losses behind them, after `before` words that were copied already. */
  #read(offset: number, length: number, before = 0): Promise<Float32Array> {
    this.#readBack.copy(this.#memory.gradients, offset, before, length);
    return this.#readBack.read(before + length);
  }
}

/** Rows of a batch, at most: a dispatch has that many workgroups. */
const maxRows = 65_535;

function sum(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum;
}
