import type { LinearSpec, Step } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import {
  type Activation,
  type Backend,
  type Matrix,
  type PlacedRows,
  placesBytes,
  type ScatteredColumns,
  scalesBytes,
  sumsBytes,
  type Vector,
  type WeightArea,
} from "../../kernels/index.js";
import type { OffloadedFile } from "./description.js";
import { hotUnits } from "./hot.js";
import { areaOpener, OffloadedWeights } from "./offloadedWeights.js";
import type { OffloadOptions, OffloadPlan } from "./options.js";
import type { OffloadLayout, OffloadStream, UnitPart } from "./placement.js";
import { align, divideRoom } from "./pools.js";
import { SlotPool, zeroOffloadCounters } from "./residency.js";

/** A stream with where it is held. */
export interface HeldStream {
  readonly stream: OffloadStream;
  readonly pool: SlotPool;
  readonly index: number;
  /** What its columns are multiplied as. */
  readonly columns: ScatteredColumns;
  /** What the rows of `up` are multiplied as, where all of them stay; only of neurons. */
  readonly rows: PlacedRows | undefined;
  /** Byte offsets within a slot. */
  readonly within: ReadonlyMap<UnitPart["name"], number>;
  token: number;
}

/** Clusters are cut between groups of inputs, so none is smaller. */
const leastSlots = 96;

/** The offloaded weights of a model on a backend. */
export class Offload extends OffloadedWeights {
  /** Scores of the layer that comes next, as they were looked ahead for. */
  readonly ahead = new Map<number, Float32Array>();
  #holdsAll = false;

  private constructor(
    backend: Backend,
    area: WeightArea,
    layout: OffloadLayout,
    override readonly held: readonly HeldStream[],
    /** The matrices of gates, which stay, by layer; only of neurons. */
    readonly gates: ReadonlyMap<number, Matrix>,
    plan: OffloadPlan,
    options: OffloadOptions,
    /** Of every layer, where neurons are predicted. */
    readonly predictors: readonly LoadedPredictor[] | undefined,
  ) {
    super(backend, area, layout, held, plan, options);
  }

  /**
   * @param allStreams of the file, by the steps that are run
   * @param stay matrices of gates by layer, and whether those of `down` are loaded as well
   * @param fixedBytes weights that were loaded, @param promptBytes what loading and running the largest step of a prompt takes
   * @throws UsageError where `residentBytes` are too few, or for a backend that cannot
   */
  static async open(
    backend: Backend,
    file: OffloadedFile,
    allStreams: readonly OffloadStream[],
    stay: { readonly gates: ReadonlyMap<number, Matrix>; readonly down: boolean },
    { fixedBytes, promptBytes }: { fixedBytes: number; promptBytes: number },
    options: OffloadOptions,
    predictors?: readonly LoadedPredictor[],
  ): Promise<Offload> {
    const openArea = areaOpener(backend);
    const { residentBytes = Number.POSITIVE_INFINITY } = options;
    const { gates } = stay;
    // Parts that stay in memory for themselves are not read.
    const partsOf = ({ of, parts }: OffloadStream) =>
      of !== "neurons"
        ? parts
        : parts.filter(({ name }) => (name !== "gate" || gates.size === 0) && (name !== "down" || !stay.down));
    const bytesOf = (stream: OffloadStream) => align(partsOf(stream).reduce((sum, { bytes }) => sum + bytes, 0));
    let end = 64;
    const take = (bytes: number): number => {
      const at = end;
      end += align(bytes);
      return at;
    };
    // Sums are shared by all layers of a shape: a product is done before the next one begins.
    const tables = new Map<string, number>();
    const columnsOf = ({ mlp, of, scales }: OffloadStream): ScatteredColumns => {
      const maps: readonly LinearSpec[] = (of === "first" ? mlp.first : mlp.down).maps.map(({ map }) => map);
      const parts = maps.map(({ role, rows }) => ({ name: role, rows }));
      const shape = { format: file.shape.weights, cols: maps[0].cols, parts };
      const key = JSON.stringify(shape);
      const sums = tables.get(key) ?? take(sumsBytes(shape));
      tables.set(key, sums);
      return {
        ...{ ...shape, sums, places: take(placesBytes(shape)) },
        scales: stay.down ? 0 : take(Math.max(scalesBytes(shape), scales.bytes)),
      };
    };
    const rowsOf = ({ mlp: { up }, of, units }: OffloadStream): PlacedRows | undefined =>
      of !== "neurons" || up === undefined || gates.size === 0
        ? undefined
        : { format: file.shape.weights, rows: units, cols: up.cols, places: take(4 * units) };
    const columns = new Map(allStreams.map((stream) => [stream, columnsOf(stream)]));
    const rows = new Map(allStreams.map((stream) => [stream, rowsOf(stream)]));
    const stays = fixedBytes + end;
    const sizeOf = (stream: OffloadStream) => ({ unitBytes: bytesOf(stream), units: stream.units });
    const room = residentBytes - stays - promptBytes;
    const { pools, offloadedBytes, lacking } = divideRoom(allStreams, sizeOf, room, leastSlots);
    if (lacking !== undefined) {
      throw new UsageError(
        `${residentBytes} bytes of resident weights are too few: ${stays} always stay, a step of a prompt takes ${promptBytes}, and ` +
          `something must be left to read into; give at least ${Math.ceil(stays + promptBytes + lacking)}`,
      );
    }
    const firsts = pools.map(({ slots, slotBytes }) => take(slots * slotBytes));
    const area = await openArea(end);
    let offload: Offload | undefined;
    const held = pools.flatMap(({ slotBytes, streams, slots }, p) => {
      const places = streams.map((stream) => ({ units: stream.units, parts: partsOf(stream) }));
      const counters = () => offload?.counters ?? zeroOffloadCounters();
      const pool = new SlotPool(area, firsts[p], slotBytes, slots, places, file.source, counters, options);
      return streams.map((stream, index): HeldStream => {
        let at = 0;
        const within = new Map(
          partsOf(stream).map(({ name, bytes }) => {
            at += bytes;
            return [name, at - bytes];
          }),
        );
        return { stream, pool, index, columns: columns.get(stream)!, rows: rows.get(stream), within, token: 0 };
      });
    });
    try {
      for (const {
        stream,
        columns: { scales },
      } of held) {
        if (stream.scales.bytes === 0 || stay.down) continue;
        area.bytes(scales, stream.scales.bytes).set(await file.source.read(stream.scales.at, stream.scales.bytes));
      }
      const pinnedUnits = file.counted ? await pinHot(file, held, options.pinned ?? 0.5) : 0;
      const roomBytes = pools.reduce((sum, { slots, slotBytes }) => sum + slots * slotBytes, 0);
      const plan = { fixedBytes: stays, promptBytes, roomBytes, offloadedBytes, pinnedUnits };
      offload = new Offload(backend, area, file.shape.layout, held, gates, plan, options, predictors);
      return offload;
    } catch (error) {
      area[Symbol.dispose]();
      throw error;
    }
  }

  /**
   * Reads every unit, where there is room for all and none is to go: from then on kernels find by themselves what they need, and nothing
   * waits for the host to look at gates or inputs.
   */
  async holdAll(signal?: AbortSignal): Promise<void> {
    const { window, predict } = this.options;
    if (window !== undefined || predict !== undefined || this.predictors !== undefined) return;
    if (!this.held.every(({ pool }) => pool.holdsAll)) return;
    for (const { stream, pool, index, columns, rows, within } of this.held) {
      signal?.throwIfAborted();
      const units = Uint32Array.from({ length: stream.units }, (_, unit) => unit);
      const { offsets, ready } = pool.begin(index, units, 0, false);
      await ready;
      this.checkOpen();
      const column = within.get("columns") ?? within.get("down");
      if (column !== undefined) for (const unit of units) this.area.place(columns, unit, offsets[unit] + column);
      if (rows !== undefined)
        for (const unit of units) this.area.placeRow(rows, unit, offsets[unit] + within.get("up")!);
    }
    this.#holdsAll = true;
    this.takeCounters();
  }

  /** Whether every unit is in memory and stays there. */
  get holdsEverything(): boolean {
    return this.#holdsAll;
  }

  /** out[unit] = x · the row of `up` of each unit whose gate is open; 0 elsewhere. Where everything is held. */
  multiplyOpenRows({ rows }: HeldStream, { out, x, gate, threshold }: OpenRowsProduct): void {
    this.area.linearOpenRows(out, x, gate, rows!, threshold);
  }

  /** The stream that a step reads. */
  of(step: Step): HeldStream | undefined {
    return this.held.find(({ stream: { mlp, of } }) => {
      if (of === "neurons") return mlp.first === step || mlp.down === step;
      return mlp[of] === step;
    });
  }

  /** Counts what was read beside the units. */
  countRead(bytes: number, waitMs: number): void {
    this.counters.bytesRead += bytes;
    this.counters.reads++;
    this.counters.waitMs += waitMs;
  }

  /** out = x · columns of the inputs beyond their thresholds, which are read where they are missing. x [1, cols] */
  async multiplyColumns(held: HeldStream, { out, x, thresholds, options }: ColumnsProduct): Promise<void> {
    const { columns, within } = held;
    if (this.#holdsAll) {
      this.area.linearColumns(out, x, columns, { ...options, thresholds });
      return;
    }
    const values = await this.backend.read(x);
    this.checkOpen();
    const least = Math.min(...thresholds.map(Math.fround));
    const needed = Uint32Array.from(values.keys()).filter((i) => !(Math.abs(values[i]) <= least));
    const at = within.get("columns") ?? within.get("down")!;
    const groups = Math.ceil(columns.cols / 32);
    let firstGroup = 0;
    await this.#visit(held, needed, held.stream.of !== "neurons", (units, offsets, last) => {
      for (let u = 0; u < units.length; u++) this.area.place(columns, units[u], offsets[u] + at);
      const endGroup = last ? groups : Math.floor(units[units.length - 1] / 32) + 1;
      this.area.linearColumns(out, x, columns, { ...options, thresholds, firstGroup, endGroup });
      firstGroup = endGroup;
    });
  }

  /** Begins to read units that are expected to be needed. */
  prefetch({ pool, index, token }: HeldStream, units: Uint32Array): void {
    pool.begin(index, pool.holdsAll ? units : units.subarray(0, Math.floor(pool.free / 3)), token + 1, false);
  }

  /** out[unit] = x · the row of each unit; 0 elsewhere. @param ticks as in `#visit` */
  async multiplyRows(
    held: HeldStream,
    name: "up" | "gate",
    units: Uint32Array,
    { out, x, threshold, ticks }: RowsProduct,
  ): Promise<void> {
    const at = held.within.get(name)!;
    const { format } = held.columns;
    this.backend.write(out, new Float32Array(out.cols));
    const [there, missing] = [true, false].map((resident) =>
      units.filter((unit) => held.pool.isResident(held.index, unit) === resident),
    );
    const order = new Uint32Array(units.length);
    order.set(there);
    order.set(missing, there.length);
    await this.#visit(held, order, ticks, (outputs, offsets) => {
      const rows = { format, cols: x.cols, offsets: offsets.map((offset) => offset + at), outputs };
      this.area.linearRows(out, x, rows, threshold);
    });
  }

  /** Shows units to `use` in clusters, each in memory, while the next is read. @param ticks whether a token begins for them */
  async #visit(
    held: HeldStream,
    units: Uint32Array,
    ticks: boolean,
    use: (units: Uint32Array, offsets: Uint32Array, last: boolean) => void,
  ): Promise<void> {
    const { pool, index } = held;
    if (ticks) held.token++;
    const { pipelined = true, clusterUnits = 256 } = this.options;
    const most = pool.holdsAll ? units.length : Math.floor(pool.free / 3);
    const clusters = clustersOf(units, pipelined ? Math.min(most, Math.max(32, clusterUnits)) : most);
    if (clusters.length === 0) {
      use(units, new Uint32Array(), true);
      return;
    }
    await this.visit(clusters, (cluster) => pool.begin(index, cluster, held.token), use);
  }
}

interface ColumnsProduct {
  out: Activation;
  x: Activation;
  thresholds: readonly number[];
  options: Pick<Parameters<WeightArea["linearColumns"]>[3], "bias" | "accumulate">;
}

interface OpenRowsProduct {
  out: Activation;
  x: Activation;
  gate: Activation;
  threshold: number;
}

interface RowsProduct {
  out: Activation;
  x: Activation;
  threshold: number;
  ticks: boolean;
}

/** A predictor on the backend. */
export interface LoadedPredictor {
  readonly down: Matrix;
  readonly up: Matrix;
  readonly bias: Vector;
  /** Whether it predicts from what enters the MLP of the layer before. */
  readonly ahead: boolean;
}

/** Runs of at most `most` units, cut between groups of 32 where that can be: a group is multiplied at once. */
function clustersOf(units: Uint32Array, most: number): Uint32Array[] {
  const clusters: Uint32Array[] = [];
  for (let first = 0; first < units.length; ) {
    let end = Math.min(units.length, first + most);
    if (end < units.length) {
      let cut = end;
      while (cut > first && Math.floor(units[cut] / 32) === Math.floor(units[cut - 1] / 32)) cut--;
      if (cut > first) end = cut;
    }
    clusters.push(units.subarray(first, end));
    first = end;
  }
  return clusters;
}

/** Pins what was used most, over all layers, in a share of the room of each pool. @returns how many units */
async function pinHot(file: OffloadedFile, held: readonly HeldStream[], share: number): Promise<number> {
  if (!(share >= 0 && share <= 1)) throw new UsageError(`a pinned share of ${share}; expected 0 to 1`);
  let pinned = 0;
  for (const pool of new Set(held.map((one) => one.pool))) {
    const streams = held.filter((one) => one.pool === pool);
    const counts = [];
    for (const { stream } of streams) counts.push(await readCounts(file, stream));
    const { units } = hotUnits(counts, Math.min(Math.floor(pool.slots * share), pool.slots - leastSlots));
    for (const [s, { index }] of streams.entries()) {
      if (units[s].length > 0) await pool.pin(index, units[s]);
      pinned += units[s].length;
    }
  }
  return pinned;
}

/** How often the units of a stream were used on the calibration text. */
export async function readCounts(
  { source }: Pick<OffloadedFile, "source">,
  stream: OffloadStream,
): Promise<Uint32Array> {
  const bytes = await source.read(stream.counts, 4 * stream.units);
  return new Uint32Array(bytes.slice().buffer);
}
