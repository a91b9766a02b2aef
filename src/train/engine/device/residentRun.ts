import type { DeviceMemory } from "../../../kernels/internal.js";
import type { Batch, LossAndGradients } from "../../objective.js";
import type { ResidentOptions, ResidentRun } from "../../resident.js";
import { markNonZeros } from "../../selection/masks.js";
import { type FloatArray, isSparsifiable } from "../../values.js";
import type { Plan } from "./layout.js";
import { flagsOf, packMasks, unpackMasks } from "./maskFlags.js";
import { Memories } from "./memories.js";
import type { ModelMemory } from "./operations.js";
import { DeviceProjection } from "./projection.js";
import {
  adamStep,
  chooseMasks,
  clipFactor,
  maskWeights,
  maxUpdateGroups,
  prepareGradients,
  scaleGradients,
  scaleWeights,
  updateGroups,
} from "./updateKernels.js";

/** What the run needs of the objective that holds it; the run fills the weights before every step. */
export interface StepOnDevice extends ModelMemory {
  plan: Plan;
  /** Records loss and gradients of a batch at `weights`. */
  record(batch: Batch): void;
  /** Logits at `weights`. */
  predict(batch: Batch): Promise<FloatArray>;
  /** Submits, and reads the loss of the batch that was recorded, what was measured beside it, and the first words of `counters`. */
  readLoss(
    counters: DeviceMemory,
    words: number,
  ): Promise<Omit<LossAndGradients, "gradients"> & { counts: Uint32Array }>;
}

/** A matrix with trainable scales: where it and they lie, among the parameters and among the scales. */
interface ScaledMatrix {
  offset: number;
  rows: number;
  cols: number;
  scales: number;
}

/** Weights, moments and masks of a run on the device: one array each, the parameters as planned and the scales behind them. */
export class DeviceResidentRun implements ResidentRun {
  readonly #offsets: ReadonlyMap<string, number>;
  readonly #length: number;
  readonly #scaled: readonly ScaledMatrix[];
  readonly #master: DeviceMemory;
  readonly #mean: DeviceMemory;
  readonly #square: DeviceMemory;
  readonly #flags: DeviceMemory;
  readonly #first: DeviceMemory;
  readonly #scaleGradients: DeviceMemory;
  readonly #sums: DeviceMemory;
  readonly #shorten: DeviceMemory;
  readonly #counters: DeviceMemory;
  readonly #projection: DeviceProjection | undefined;
  readonly #own: Memories;
  #chosen: boolean;

  constructor(
    readonly step: StepOnDevice,
    readonly options: ResidentOptions,
  ) {
    const { plan, compute } = step;
    const own = new Memories(compute);
    this.#own = own;
    const { method, optimizer, parameters, arrays } = options;
    this.#chosen = options.chosen;
    const offsets = new Map(plan.offsets);
    let length = plan.length;
    const scaled: ScaledMatrix[] = [];
    for (const { name, shape } of typeof method.forward === "object" ? parameters.filter(isSparsifiable) : []) {
      const { scales, nameOf } = method.forward as { scales: number; nameOf(name: string): string };
      scaled.push({ offset: plan.offsets.get(name)!, rows: shape[0], cols: shape[1], scales: length - plan.length });
      offsets.set(nameOf(name), length);
      length += Math.ceil((shape[0] * scales) / 4) * 4;
    }
    this.#offsets = offsets;
    this.#length = length;
    this.#scaled = scaled;
    this.#master = own.allocate(length, "master weights");
    this.#mean = own.allocate(length, "mean gradients");
    this.#square = own.allocate(length, "mean squares");
    this.#flags = own.allocate(length / 4, "masks");
    this.#first = own.allocate(length / 4, "first masks");
    this.#scaleGradients = own.allocate(length - plan.length, "gradients of scales");
    this.#sums = own.allocate(2 * maxUpdateGroups, "sums of squares");
    this.#shorten = own.allocate(1, "clip factor");
    this.#counters = own.allocate(2, "mask changes");
    this.#upload(this.#master, arrays.weights);
    this.#upload(this.#mean, arrays.mean);
    this.#upload(this.#square, arrays.square);
    const layout = { offsets, length };
    this.#write(this.#flags, flagsOf(layout, parameters, method.masks, optimizer.decays));
    if (method.first !== undefined) this.#write(this.#first, packMasks(layout, method.first));
    this.#projection = this.#startProjection(own);
  }

  async advance(batch: Batch, step: number): Promise<Omit<LossAndGradients, "gradients">> {
    const { method } = this.options;
    const chooses = method.interval > 0 && (!this.#chosen || step % method.interval === 0);
    if (chooses) this.#choose();
    this.#fillWeights();
    this.step.record(batch);
    this.#update(step);
    const projects = method.projection !== undefined && (step + 1) % method.projection.interval === 0;
    if (projects) this.#project();
    const { counts, ...said } = await this.step.readLoss(this.#counters, 2);
    if (chooses) method.observe?.(counts[0] / this.#maskEntries, counts[1] / this.#maskEntries);
    if (projects) method.projection!.observe(counts[0] / this.#maskEntries);
    return said;
  }

  predict(batch: Batch): Promise<FloatArray> {
    this.#fillWeights();
    return this.step.predict(batch);
  }

  async synchronise(): Promise<void> {
    const { arrays, method } = this.options;
    await this.#download(this.#master, arrays.weights);
    await this.#download(this.#mean, arrays.mean);
    await this.#download(this.#square, arrays.square);
    if (method.projection === undefined) unpackMasks(this.#offsets, await this.#words(this.#flags), method.masks);
    else markNonZeros(arrays.weights, method.masks);
    if (method.first !== undefined) unpackMasks(this.#offsets, await this.#words(this.#first), method.first);
  }

  [Symbol.dispose](): void {
    this.#own[Symbol.dispose]();
  }

  get #maskEntries(): number {
    return Array.from(this.options.method.masks.values()).reduce((sum, mask) => sum + mask.length, 0);
  }

  #startProjection(own: Memories): DeviceProjection | undefined {
    const { method, parameters } = this.options;
    if (method.projection === undefined) return undefined;
    const lengths = new Map(parameters.map(({ name, shape }) => [name, shape.reduce((a, b) => a * b, 1)]));
    const stretch = (name: string) => ({ offset: this.#offsets.get(name)!, length: lengths.get(name)! });
    const budgets = method.projection.budgets.map(({ names, keep }) => ({ stretches: names.map(stretch), keep }));
    return new DeviceProjection(own, budgets);
  }

  #project(): void {
    this.#write(this.#counters, new Uint32Array(2));
    this.#projection!.record(this.#master, this.#counters);
  }

  #choose(): void {
    const count = this.step.plan.length / 4;
    this.#write(this.#counters, new Uint32Array(2));
    this.step.compute.recorder.run(
      chooseMasks,
      { count, keep: this.options.method.keep, isFirst: this.#chosen ? 0 : 1 },
      { flags: this.#flags, first: this.#first, counters: this.#counters, master: this.#master },
      [updateGroups(count)],
    );
    this.#chosen = true;
  }

  #fillWeights(): void {
    const { compute, plan, weights } = this.step;
    const { forward } = this.options.method;
    if (forward === "masked") {
      const buffers = { weights, master: this.#master, flags: this.#flags };
      const count = plan.length / 4;
      compute.recorder.run(maskWeights, { count }, buffers, [updateGroups(count)]);
      return;
    }
    compute.recorder.copy(this.#master, 0, weights, 0, 4 * plan.length);
    if (forward === "weights") return;
    for (const { offset, rows, cols, scales } of this.#scaled) {
      compute.recorder.run(
        scaleWeights,
        {
          count: rows * cols,
          offset,
          width: cols,
          stretches: forward.scales,
          scales: plan.length + scales,
        },
        { weights, master: this.#master, scale: this.#master },
        [updateGroups(rows * cols)],
      );
    }
  }

  #update(step: number): void {
    const { compute, plan, gradients } = this.step;
    const { method, optimizer } = this.options;
    const { recorder } = compute;
    const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weightDecay = 0, clip = 3e38, rate } = optimizer;
    const pull = method.pull(step);
    const frozen = method.frozen ? 1 : 0;
    const scales = this.#length - plan.length;
    recorder.makeRoom(this.#scaled.length + 5, 0);
    if (typeof method.forward === "object") {
      for (const { offset, rows, cols, scales } of this.#scaled) {
        recorder.run(
          scaleGradients,
          { offset, width: cols, stretches: method.forward.scales, scales: plan.length + scales, result: scales },
          { gradients, scaleGradient: this.#scaleGradients, master: this.#master, scale: this.#master },
          [rows, method.forward.scales],
        );
      }
    }
    /** The parameters, then the scales. */
    const stretches = [
      { count: plan.length / 4, first: 0, gradients },
      ...(scales === 0 ? [] : [{ count: scales / 4, first: plan.length / 4, gradients: this.#scaleGradients }]),
    ];
    for (const [i, { count, first, gradients }] of stretches.entries()) {
      recorder.run(
        prepareGradients,
        { count, master: first, part: i * maxUpdateGroups, frozen, pull: pull.gradient },
        { gradients, parts: this.#sums, master: this.#master, flags: this.#flags },
        [updateGroups(count)],
      );
    }
    recorder.run(
      clipFactor,
      { parts: stretches.length * maxUpdateGroups, clip },
      { shorten: this.#shorten, sums: this.#sums },
      [1],
    );
    for (const { count, first, gradients } of stretches) {
      recorder.run(
        adamStep,
        {
          count,
          first,
          frozen,
          beta1,
          beta2,
          epsilon,
          meanCorrection: 1 / (1 - beta1 ** (step + 1)),
          squareCorrection: 1 / (1 - beta2 ** (step + 1)),
          rate: rate(step),
          decay: method.decays ? weightDecay : 0,
          keepMean: pull.mean,
          pullWeight: pull.weight,
          pullSign: pull.sign,
          squaresMeans: method.squares === "means" ? 1 : 0,
        },
        {
          master: this.#master,
          mean: this.#mean,
          square: this.#square,
          gradients,
          flags: this.#flags,
          shorten: this.#shorten,
        },
        [updateGroups(count)],
      );
    }
  }

  /** Flags of every four. */
  async #words(memory: DeviceMemory): Promise<Uint32Array> {
    return new Uint32Array(await this.step.compute.recorder.read(memory, 0, this.#length));
  }

  #upload(memory: DeviceMemory, arrays: ReadonlyMap<string, FloatArray>): void {
    for (const [name, offset] of this.#offsets) this.#write(memory, arrays.get(name) as Float32Array, offset);
  }

  async #download(memory: DeviceMemory, arrays: ReadonlyMap<string, FloatArray>): Promise<void> {
    const values = new Float32Array(await this.step.compute.recorder.read(memory, 0, 4 * this.#length));
    for (const [name, offset] of this.#offsets) {
      const target = arrays.get(name)!;
      target.set(values.subarray(offset, offset + target.length));
    }
  }

  #write(memory: DeviceMemory, values: Float32Array | Uint32Array, offset = 0): void {
    this.step.compute.write(memory, values, offset);
  }
}
