import { findStep, type ModelSpec, sitesOf } from "../../arch/index.js";
import {
  InputStatistics,
  type StatisticId,
  StatisticsAccumulator,
  type StatisticValues,
} from "../../compress/index.js";
import { breathe, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import { type Activation, type Backend, openBackend, type RoutedSlots } from "../../kernels/index.js";
import { checkSound, firstNonFiniteOf, loadDescribed, type Model, nonFiniteError } from "../../model/index.js";
import type { TextWindows } from "../gradients.js";
import { type InputKey, inputKey } from "./block.js";
import type { BlockView } from "./blockView.js";
import { embedWindows } from "./embedWindows.js";

export interface CalibrationRunOptions {
  /** Default: the fastest of the CPU. */
  backend?: string;
  threads?: number;
  signal?: AbortSignal;
  /** Called after each window that ran through a block. */
  onWindow?(): void;
}

/**
 * All calibration windows on their way through a model, block by block: the residual stream of each, f32
 * [windows * window, hiddenSize], and nothing else between blocks.
 */
export class CalibrationRun {
  private constructor(
    readonly streams: Float32Array,
    readonly hiddenSize: number,
    readonly window: number,
    readonly options: CalibrationRunOptions,
  ) {}

  static async start(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    { tokens, window }: TextWindows,
    options: CalibrationRunOptions,
  ): Promise<CalibrationRun> {
    const streams = await embedWindows(checkpoint, spec, tokens, window);
    return new CalibrationRun(streams, spec.hiddenSize, window, options);
  }

  get windows(): number {
    return this.streams.length / (this.window * this.hiddenSize);
  }

  /**
   * What enters the matrices of a block, over all windows; of experts what is sent to each, left out where that is nothing.
   * The streams stay what they are.
   */
  async collect(block: BlockView, wanted: readonly StatisticId[]): Promise<Map<InputKey, InputStatistics>> {
    return this.#withBlock(block, async (backend, model) => {
      const sums = new Map<InputKey, SiteSums>();
      const [spec] = block.config.spec.blocks;
      // What matrices read, in the order in which a block comes to it.
      const sites = sitesOf(spec).flatMap(({ site, readers }) => (readers.length > 0 ? [site.id] : []));
      const last = sites[sites.length - 1];
      const [expert] = findStep(spec, "mixture")?.experts ?? [];
      const shared = expert && findStep(expert, "linear")?.site.id;
      const add = async (key: InputKey, x: Activation) => {
        let sum = sums.get(key);
        if (sum === undefined) {
          sum = new SiteSums(`${block.checkpoint.location}, ${key}`, backend, wanted);
          sums.set(key, sum);
        }
        await sum.add(x);
      };
      const onActivation = async (_layer: number, site: string, activation: Activation, slots?: RoutedSlots) => {
        if (slots === undefined) await add(site, activation);
        else
          await eachExpert(backend, site === shared, activation, slots, (expert, x) => add(inputKey(site, expert), x));
        // What follows, the block's last product, is not needed.
        if (site === last) throw enough;
      };
      await this.#eachWindow(backend, model, async (run) => {
        try {
          await run({ sites, onActivation });
        } catch (error) {
          if (error !== enough) throw error;
        }
      });
      const statistics = new Map<InputKey, InputStatistics>();
      for (const [key, sum] of sums) statistics.set(key, await sum.finish());
      return statistics;
    });
  }

  /** Runs all windows through a block; the streams become its outputs. */
  async advance(block: BlockView): Promise<void> {
    await this.#withBlock(block, (backend, model) =>
      this.#eachWindow(backend, model, async (run, stream, x) => {
        await run();
        stream.set(await backend.read(x));
        const bad = firstNonFiniteOf(stream);
        if (bad >= 0) throw nonFiniteError(`behind ${block.checkpoint.location}`, stream[bad]);
      }),
    );
  }

  async #withBlock<T>(
    { checkpoint, config }: BlockView,
    use: (backend: Backend, model: Model) => Promise<T>,
  ): Promise<T> {
    const { backend: id, threads, signal } = this.options;
    using backend = await openBackend(id, threads === undefined ? {} : { threads });
    using model = await loadDescribed(checkpoint, config, backend, { weights: "f32", signal });
    checkSound(model);
    return await use(backend, model);
  }

  async #eachWindow(
    backend: Backend,
    model: Model,
    visit: (run: (tap?: Tap) => Promise<void>, stream: Float32Array, x: Activation) => Promise<void>,
  ): Promise<void> {
    const { streams, hiddenSize, window } = this;
    using cache = model.createCache(window);
    const x = backend.allocate(window, hiddenSize);
    for (let start = 0; start < streams.length; start += window * hiddenSize) {
      await breathe(this.options.signal);
      const stream = streams.subarray(start, start + window * hiddenSize);
      backend.write(x, stream);
      await visit((tap) => model.block(0, x, cache, 0, { tap }), stream, x);
      this.options.onWindow?.();
    }
  }
}

/**
 * Hands out the rows that each expert sees, those of one expert together.
 * @param gathers what enters the experts has one row for every token, which several of them see
 */
async function eachExpert(
  backend: Backend,
  gathers: boolean,
  activation: Activation,
  { rows, experts }: RoutedSlots,
  visit: (expert: number, x: Activation) => Promise<void>,
): Promise<void> {
  const { cols } = activation;
  const x = gathers ? backend.allocate(rows.length, cols) : activation;
  if (gathers) {
    const values = await backend.read(activation);
    const gathered = new Float32Array(rows.length * cols);
    for (const [slot, row] of rows.entries()) gathered.set(values.subarray(row * cols, (row + 1) * cols), slot * cols);
    backend.write(x, gathered);
  }
  for (let start = 0; start < rows.length; ) {
    let end = start + 1;
    while (end < rows.length && experts[end] === experts[start]) end++;
    await visit(experts[start], x.rowRange(start, end - start));
    start = end;
  }
  if (gathers) backend.release(x);
}

type Tap = NonNullable<NonNullable<Parameters<Model["block"]>[4]>["tap"]>;

/** Thrown by the tap of `collect` and caught there. */
const enough = new UsageError("the block was left half-way, on purpose");

/** Sums over what enters one site: the gram on the backend where it can, the rest on the host. */
class SiteSums {
  readonly #onHost: readonly StatisticId[];
  #host: StatisticsAccumulator | undefined;
  #gram: Activation | undefined;
  #cols = 0;
  #tokens = 0;

  constructor(
    readonly name: string,
    readonly backend: Backend,
    readonly wanted: readonly StatisticId[],
  ) {
    // The squares are the diagonal of the gram.
    const gram = wanted.includes("gram");
    const onBackend = gram && backend.addGram !== undefined;
    this.#onHost = wanted.filter((id) => !(id === "columnSquares" && gram) && !(id === "gram" && onBackend));
  }

  async add(x: Activation): Promise<void> {
    const { backend, wanted } = this;
    this.#cols = x.cols;
    this.#tokens += x.rows;
    if (this.#onHost.length > 0) {
      this.#host ??= new StatisticsAccumulator(x.cols, this.#onHost);
      const values = await backend.read(x);
      const bad = firstNonFiniteOf(values);
      if (bad >= 0) throw nonFiniteError(`in ${this.name}, input channel ${bad % x.cols}`, values[bad]);
      this.#host.add(values);
    }
    if (!wanted.includes("gram") || backend.addGram === undefined) return;
    if (this.#gram === undefined) {
      this.#gram = backend.allocate(x.cols, x.cols);
      backend.write(this.#gram, new Float32Array(x.cols * x.cols));
    }
    backend.addGram(this.#gram, x);
  }

  /** @throws NonFiniteError when an input was not finite */
  async finish(): Promise<InputStatistics> {
    const values: Partial<StatisticValues> = this.#host?.finish().values ?? {};
    if (this.#gram !== undefined) {
      const n = this.#cols;
      const gram = await this.backend.read(this.#gram);
      const bad = gram.findIndex((value, i) => i % n >= Math.floor(i / n) && !Number.isFinite(value));
      if (bad >= 0) throw nonFiniteError(`in ${this.name}, input channel ${bad % n}`, gram[bad]);
      for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) gram[i * n + j] = gram[j * n + i];
      values.gram = gram;
    }
    return new InputStatistics(this.#cols, this.#tokens, values);
  }
}
