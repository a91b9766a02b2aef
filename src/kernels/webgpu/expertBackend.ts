import { isSparse, type PackedFormatId, type WeightFormatId } from "../../pack/index.js";
import type { Activation, Backend, BackendCounters, RowSource } from "../backend.js";
import type {
  ExpertLinearOptions,
  ExpertMatrices,
  LoadExpertsOptions,
  RoutedSlots,
  RouteOptions,
  Routing,
} from "../experts.js";
import { type ExpertList, expertList, HostExperts } from "../hostExperts.js";
import type { HostRouting } from "../routing.js";
import type { Context } from "./context.js";
import type { GpuMemory } from "./device.js";
import { checkExpertFormat } from "./expertCheck.js";
import * as device from "./experts.js";
import type { HeldWeights } from "./heldWeights.js";
import type { FormatKernels, GpuMatrix } from "./matrix.js";
import { morphemeScores } from "./morphemes.js";
import { type ActivationPool, type GpuVector, own } from "./storage.js";

/**
 * Mixtures of experts on a GPU. For one row the GPU chooses by itself and finds the matrices of the chosen by their
 * numbers, so that a token waits for nothing. For several rows, and for formats without kernels that do so, the host reads
 * the logits and enqueues a product for every expert with rows. Morphemes, which are found by their numbers as well, are here too.
 */
export abstract class ExpertBackend extends HostExperts {
  readonly #context: Context;
  readonly #pool: ActivationPool;
  readonly #counters: BackendCounters;
  readonly #kernels = new Map<WeightFormatId, Promise<device.ExpertKernels | undefined>>();
  /** Biases of routers by the numbers that were given. */
  readonly #biases = new WeakMap<Float32Array, GpuMemory>();
  #zeros = new Float32Array(0);
  /** Whether some experts can only be found by the host. */
  #hostChooses = false;
  /** What was wrong with kernels that are not used. */
  readonly problems: string[] = [];

  constructor(
    context: Context,
    pool: ActivationPool,
    counters: BackendCounters,
    protected readonly weights: HeldWeights,
  ) {
    super();
    this.#context = context;
    this.#pool = pool;
    this.#counters = counters;
  }

  morphemeScores(...operands: Parameters<Backend["morphemeScores"]>): void {
    morphemeScores(this.#context, this.#counters, ...operands);
  }

  /** The kernels of a dense format, checked. */
  protected abstract formatKernels(format: WeightFormatId): Promise<FormatKernels>;

  override async loadExperts(
    experts: readonly (readonly RowSource[])[],
    format: PackedFormatId,
    { biases, ...job }: LoadExpertsOptions = {},
  ): Promise<ExpertMatrices> {
    const uploaded = () => biases && this.#upload(Float32Array.from(biases.flatMap((values) => [...values])));
    if (isSparse(format)) {
      this.#hostChooses = true;
      const list = (await super.loadExperts(experts, format, job)) as ExpertList;
      const biased: device.GpuExperts = { ...list, bias: uploaded() };
      return biased;
    }
    const whole = (await this.loadMatrix(experts.flat(), format, job)) as GpuMatrix;
    const matrices = device.splitExperts(whole, experts.length);
    const chosen = device.chosenAmong(matrices, await this.#kernelsOf(format));
    this.#hostChooses ||= chosen === undefined;
    const list: device.GpuExperts = { ...expertList(matrices), chosen, bias: uploaded() };
    return list;
  }

  override freeExperts(list: ExpertMatrices): void {
    const { matrices, experts, rows, bias } = list as device.GpuExperts;
    this.weights.freeMatrices(matrices);
    if (bias !== undefined) this.weights.free([bias], experts * rows * 4);
  }

  #kernelsOf(format: WeightFormatId): Promise<device.ExpertKernels | undefined> {
    let kernels = this.#kernels.get(format);
    if (kernels === undefined) {
      kernels = this.#checked(format);
      this.#kernels.set(format, kernels);
    }
    return kernels;
  }

  async #checked(format: WeightFormatId): Promise<device.ExpertKernels | undefined> {
    const dense = await this.formatKernels(format);
    const { kernels, problems } = await checkExpertFormat(this.#context, this.#pool, format, dense);
    this.problems.push(...problems);
    return kernels;
  }

  override async route(logits: Activation, options: RouteOptions): Promise<Routing> {
    const { experts, score } = options;
    const alone = logits.rows === 1 && experts <= device.mostExperts && !this.#hostChooses && score !== "relu";
    if (alone) return device.routeOnDevice(this.#context, own(logits), options, this.#choiceBiases(options));
    const routing = (await super.route(logits, options)) as HostRouting;
    device.upload(this.#context, routing);
    return routing;
  }

  override routeTo(slots: RoutedSlots, rows: number): Routing {
    const routing = { ...(super.routeTo(slots, rows) as HostRouting), elsewhere: true };
    device.upload(this.#context, routing);
    return routing;
  }

  override expertLinear(
    out: Activation,
    x: Activation,
    w: ExpertMatrices,
    routing: Routing,
    options: ExpertLinearOptions,
  ): void {
    const experts = w as device.GpuExperts;
    if (device.isOnDevice(routing)) {
      device.multiplyChosen(this.#context, own(out), own(x), experts, routing, options, this.#counters);
    } else super.expertLinear(out, x, w, routing, options);
    if (experts.bias !== undefined) device.addBias(this.#context, own(out), experts.bias, routing);
  }

  /** What is added to scores while experts are chosen: nothing, where they are chosen by scores for their groups. */
  #choiceBiases({ choiceBias, groups, experts }: RouteOptions): GpuMemory | undefined {
    const values = choiceBias ?? (groups && this.#noBias(experts));
    if (values === undefined) return undefined;
    let uploaded = this.#biases.get(values);
    if (uploaded === undefined) {
      uploaded = this.#upload(values);
      this.#biases.set(values, uploaded);
    }
    return uploaded;
  }

  #noBias(experts: number): Float32Array {
    if (this.#zeros.length < experts) this.#zeros = new Float32Array(experts);
    return this.#zeros;
  }

  #upload(values: Float32Array): GpuMemory {
    return (this.loadVector(values) as GpuVector).memory;
  }

  gatherRows(out: Activation, x: Activation, routing: HostRouting): void {
    device.gatherRows(this.#context, own(out), own(x), routing);
  }

  addExperts(out: Activation, x: Activation, routing: Routing): void {
    device.addExperts(this.#context, own(out), own(x), routing);
  }

  override async readRouting(routing: Routing): Promise<RoutedSlots> {
    return device.isOnDevice(routing) ? device.readSlots(this.#context, routing) : super.readRouting(routing);
  }
}
