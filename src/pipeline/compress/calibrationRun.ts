import { type ModelSpec, sitesOf } from "../../arch/index.js";
import {
  InputStatistics,
  type StatisticId,
  StatisticsAccumulator,
  type StatisticValues,
} from "../../compress/index.js";
import { breathe, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import type { Activation, Backend } from "../../kernels/index.js";
import { type Blocks, firstNonFiniteOf, type Tap, type TappedSlots } from "../../model/index.js";
import { loadBlocks, nonFiniteError } from "../../model/internal.js";
import type { TextWindows } from "../gradients.js";
import { type InputKey, inputKey } from "./block.js";
import type { LoadableBlock } from "./blockSource.js";
import { embedWindows } from "./embedWindows.js";

export interface CalibrationRunOptions {
  signal?: AbortSignal;
  /** Called after each window that ran through a block. */
  onWindow?(): void;
}

/**
 * All calibration windows on their way through a model, block by block: the residual stream of each, f32
 * [windows * window, hiddenSize], and nothing else between blocks. One block at a time lies on the backend.
 */
export class CalibrationRun {
  private constructor(
    readonly streams: Float32Array,
    readonly spec: ModelSpec,
    readonly backend: Backend,
    readonly window: number,
    readonly options: CalibrationRunOptions,
  ) {}

  static async start(
    checkpoint: Checkpoint,
    spec: ModelSpec,
    backend: Backend,
    { tokens, window }: TextWindows,
    options: CalibrationRunOptions,
  ): Promise<CalibrationRun> {
    const streams = await embedWindows(checkpoint, spec, tokens, window);
    return new CalibrationRun(streams, spec, backend, window, options);
  }

  get hiddenSize(): number {
    return this.spec.hiddenSize;
  }

  get windows(): number {
    return this.streams.length / (this.window * this.hiddenSize);
  }

  /**
   * What enters the matrices of a block, over all windows; of experts what is sent to each, left out where that is nothing.
   * The streams stay what they are.
   */
  async collect(block: LoadableBlock, wanted: readonly StatisticId[]): Promise<Map<InputKey, InputStatistics>> {
    const { backend } = this;
    using loaded = await this.#load(block);
    using sums = new SumsOfSites(backend, block.name, wanted);
    // What matrices read, in the order in which a block comes to it.
    const sites = sitesOf(block.spec).flatMap(({ site, readers }) => (readers.length > 0 ? [site.id] : []));
    const onActivation = async (_layer: number, site: string, activation: Activation, slots?: TappedSlots) => {
      if (slots === undefined) await sums.add(site, activation);
      else await eachExpert(backend, activation, slots, (expert, x) => sums.add(inputKey(site, expert), x));
      // What follows, the block's last product, is not needed.
      if (site === sites.at(-1)) throw enough;
    };
    await this.#eachWindow(loaded, async (run) => {
      try {
        await run({ sites, onActivation });
      } catch (error) {
        if (error !== enough) throw error;
      }
    });
    return await sums.finish();
  }

  /** Runs all windows through a block; the streams become its outputs. */
  async advance(block: LoadableBlock): Promise<void> {
    using loaded = await this.#load(block);
    await this.#eachWindow(loaded, async (run, stream, x) => {
      await run();
      stream.set(await this.backend.read(x));
      const bad = firstNonFiniteOf(stream);
      if (bad >= 0) throw nonFiniteError(`behind ${block.name}`, stream[bad]);
    });
  }

  #load({ spec, source }: LoadableBlock): Promise<Blocks> {
    const { signal } = this.options;
    return loadBlocks({ ...this.spec, blocks: [spec] }, source, this.backend, { weights: "f32", signal });
  }

  async #eachWindow(
    block: Blocks,
    visit: (run: (tap?: Tap) => Promise<void>, stream: Float32Array, x: Activation) => Promise<void>,
  ): Promise<void> {
    const { streams, hiddenSize, window, backend } = this;
    using cache = block.createCache(window);
    const x = backend.allocate(window, hiddenSize);
    try {
      for (let start = 0; start < streams.length; start += window * hiddenSize) {
        await breathe(this.options.signal);
        const stream = streams.subarray(start, start + window * hiddenSize);
        backend.write(x, stream);
        await visit((tap) => block.run(0, x, cache, 0, { tap }), stream, x);
        this.options.onWindow?.();
      }
    } finally {
      backend.release(x);
    }
  }
}

/**
 * Hands out the rows that each expert sees, those of one expert together. What enters the experts has one row for every
 * token, which several of them see.
 */
async function eachExpert(
  backend: Backend,
  activation: Activation,
  { rows, experts, of }: TappedSlots,
  visit: (expert: number, x: Activation) => Promise<void>,
): Promise<void> {
  const { cols } = activation;
  const gathers = of === "rows";
  const x = gathers ? backend.allocate(rows.length, cols) : activation;
  if (gathers) {
    const values = await backend.read(activation);
    const gathered = new Float32Array(rows.length * cols);
    for (const [slot, row] of rows.entries()) gathered.set(values.subarray(row * cols, (row + 1) * cols), slot * cols);
    backend.write(x, gathered);
  }
  try {
    for (let start = 0; start < rows.length; ) {
      let end = start + 1;
      while (end < rows.length && experts[end] === experts[start]) end++;
      await visit(experts[start], x.rowRange(start, end - start));
      start = end;
    }
  } finally {
    if (gathers) backend.release(x);
  }
}

/** Thrown by the tap of `collect` and caught there. */
const enough = new UsageError("the block was left half-way, on purpose");

/** Sums over what enters the sites of a block, by what is told apart of it. */
class SumsOfSites implements Disposable {
  readonly #sums = new Map<InputKey, SiteSums>();

  constructor(
    readonly backend: Backend,
    readonly block: string,
    readonly wanted: readonly StatisticId[],
  ) {}

  async add(key: InputKey, x: Activation): Promise<void> {
    let sums = this.#sums.get(key);
    if (sums === undefined) {
      sums = new SiteSums(`${this.block}, ${key}`, this.backend, this.wanted);
      this.#sums.set(key, sums);
    }
    await sums.add(x);
  }

  /** @throws NonFiniteError when an input was not finite */
  async finish(): Promise<Map<InputKey, InputStatistics>> {
    const statistics = new Map<InputKey, InputStatistics>();
    for (const [key, sums] of this.#sums) statistics.set(key, await sums.finish());
    return statistics;
  }

  [Symbol.dispose](): void {
    for (const sums of this.#sums.values()) sums[Symbol.dispose]();
  }
}

/** Sums over what enters one site: the gram on the backend where it can, the rest on the host. */
class SiteSums implements Disposable {
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

  [Symbol.dispose](): void {
    if (this.#gram !== undefined) this.backend.release(this.#gram);
    this.#gram = undefined;
  }
}
