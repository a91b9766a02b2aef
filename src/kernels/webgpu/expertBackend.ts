import type { JobOptions } from "../../core/index.js";
import { isSparse, type PackedFormatId, type WeightFormatId } from "../../pack/index.js";
import type { Activation, BackendCounters, RowSource } from "../backend.js";
import type { ExpertLinearOptions, ExpertMatrices, RoutedSlots, RouteOptions, Routing } from "../experts.js";
import { expertList, HostExperts, type HostRouting } from "../hostExperts.js";
import type { Context } from "./context.js";
import { checkExpertFormat } from "./expertCheck.js";
import * as device from "./experts.js";
import type { FormatKernels, GpuMatrix } from "./matrix.js";
import { type ActivationPool, own } from "./storage.js";

/**
 * Mixtures of experts on a GPU. For one row the GPU chooses by itself and finds the matrices of the chosen by their
 * numbers, so that a token waits for nothing. For several rows, and for formats without kernels that do so, the host reads
 * the logits and enqueues a product for every expert with rows.
 */
export abstract class ExpertBackend extends HostExperts {
  readonly #context: Context;
  readonly #pool: ActivationPool;
  readonly #counters: BackendCounters;
  readonly #kernels = new Map<WeightFormatId, Promise<device.ExpertKernels | undefined>>();
  /** Whether some experts can only be found by the host. */
  #hostChooses = false;
  /** What was wrong with kernels that are not used. */
  protected readonly problems: string[] = [];

  constructor(context: Context, pool: ActivationPool, counters: BackendCounters) {
    super();
    this.#context = context;
    this.#pool = pool;
    this.#counters = counters;
  }

  /** The kernels of a dense format, checked. */
  protected abstract formatKernels(format: WeightFormatId): Promise<FormatKernels>;

  override async loadExperts(
    experts: readonly (readonly RowSource[])[],
    format: PackedFormatId,
    job: JobOptions = {},
  ): Promise<ExpertMatrices> {
    if (isSparse(format)) {
      this.#hostChooses = true;
      return super.loadExperts(experts, format, job);
    }
    const whole = (await this.loadMatrix(experts.flat(), format, job)) as GpuMatrix;
    const matrices = device.splitExperts(whole, experts.length);
    const chosen = device.chosenAmong(matrices, await this.#kernelsOf(format));
    this.#hostChooses ||= chosen === undefined;
    const list: device.GpuExperts = { ...expertList(matrices), chosen };
    return list;
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
    const { experts } = options;
    const alone = logits.rows === 1 && experts <= device.mostExperts && !this.#hostChooses;
    if (alone) return device.routeOnDevice(this.#context, own(logits), options);
    const routing = (await super.route(logits, options)) as HostRouting;
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
    if (!device.isOnDevice(routing)) {
      super.expertLinear(out, x, w, routing, options);
      return;
    }
    device.multiplyChosen(this.#context, own(out), own(x), w as device.GpuExperts, routing, options, this.#counters);
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
