import type { MixtureStep, Step } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import type { Activation, Backend, ExpertMatrices, RoutedSlots, Vector, WeightArea } from "../../kernels/index.js";
import type { WeightFormatId } from "../../pack/index.js";
import { type ExpertRun, runExperts } from "../runExperts.js";
import type { OffloadedFile } from "./description.js";
import type { ExpertStream } from "./expertPlacement.js";
import { areaOpener, OffloadedWeights } from "./offloadedWeights.js";
import type { OffloadOptions, OffloadPlan } from "./options.js";
import { divideRoom } from "./pools.js";
import { SlotPool, zeroOffloadCounters } from "./residency.js";

/** One expert's rows, which lie together. */
interface Work {
  readonly expert: number;
  readonly firstSlot: number;
  readonly endSlot: number;
}

interface HeldExperts {
  readonly stream: ExpertStream;
  readonly pool: SlotPool;
  readonly index: number;
  token: number;
}

/** The fewest experts of a kind that there is room for: one is multiplied, one read, and of the call before all stays. */
const leastSlots = 3;

/** The experts of a model on a backend: read when rows are sent to them, those used longest ago make room (LRU). */
export class ExpertOffload extends OffloadedWeights {
  private constructor(
    backend: Backend,
    area: WeightArea,
    override readonly held: readonly HeldExperts[],
    readonly weights: WeightFormatId,
    /** One of each expert, by the linear steps of the first. */
    readonly biases: ReadonlyMap<Step, readonly Vector[]>,
    plan: OffloadPlan,
    options: OffloadOptions,
  ) {
    super(backend, area, "experts", held, plan, options);
  }

  /**
   * @param fixedBytes weights that were loaded
   * @throws UsageError where `residentBytes` are too few, or for a backend that cannot
   */
  static async open(
    backend: Backend,
    file: OffloadedFile,
    allStreams: readonly ExpertStream[],
    biases: ReadonlyMap<Step, readonly Vector[]>,
    fixedBytes: number,
    options: OffloadOptions,
  ): Promise<ExpertOffload> {
    const openArea = areaOpener(backend);
    const { residentBytes = Number.POSITIVE_INFINITY } = options;
    // Offset 0 is nobody's.
    const stays = fixedBytes + 64;
    const sizeOf = ({ bytes, mixture }: ExpertStream) => ({ unitBytes: bytes, units: mixture.experts.length });
    const { pools, offloadedBytes, lacking } = divideRoom(allStreams, sizeOf, residentBytes - stays, leastSlots);
    if (lacking !== undefined) {
      throw new UsageError(
        `${residentBytes} bytes of resident weights are too few: ${stays} always stay, and something must be left to read experts into; ` +
          `give at least ${Math.ceil(stays + lacking)}`,
      );
    }
    const roomBytes = pools.reduce((sum, { slots, slotBytes }) => sum + slots * slotBytes, 0);
    const area = await openArea(64 + roomBytes);
    let first = 64;
    let offload: ExpertOffload | undefined;
    const counters = () => offload?.counters ?? zeroOffloadCounters();
    const held = pools.flatMap(({ slotBytes, streams, slots }) => {
      const places = streams.map(({ at, bytes, mixture }) => ({
        units: mixture.experts.length,
        parts: [{ at, stride: bytes, bytes }],
      }));
      const pool = new SlotPool(area, first, slotBytes, slots, places, file.source, counters, options);
      first += slots * slotBytes;
      return streams.map((stream, index): HeldExperts => ({ stream, pool, index, token: 0 }));
    });
    const plan = { fixedBytes: stays, promptBytes: 0, roomBytes, offloadedBytes, pinnedUnits: 0 };
    offload = new ExpertOffload(backend, area, held, file.shape.weights, biases, plan, options);
    return offload;
  }

  /** As `runExperts`: a few experts at a time, while the next are read. */
  async run(step: MixtureStep, run: ExpertRun): Promise<Activation> {
    const { backend, routing, buffers } = run;
    if (run.watch !== undefined) {
      throw new UsageError(
        "experts that are read as they are needed cannot be watched; open the model without a bound",
      );
    }
    const held = this.held.find(({ stream }) => stream.mixture === step)!;
    const { pool, index } = held;
    const slots = await backend.readRouting(routing);
    this.checkOpen();
    held.token++;
    const work = workOf(slots);
    const most = pool.holdsAll ? work.length : Math.floor(pool.free / 3);
    const clusters: Work[][] = [];
    for (let first = 0; first < work.length; first += most) clusters.push(work.slice(first, first + most));
    const begin = (cluster: readonly Work[]) =>
      pool.begin(
        index,
        cluster.map(({ expert }) => expert),
        held.token,
      );
    await this.visit(clusters, begin, async (cluster, offsets) => {
      const [{ firstSlot }, { endSlot }] = [cluster[0], cluster[cluster.length - 1]];
      const some =
        clusters.length === 1 ? routing : backend.routeTo(slotRange(slots, firstSlot, endSlot), routing.rows);
      const matrices = this.#matrices(held.stream, cluster, offsets);
      await runExperts(step, matrices, { ...run, routing: some, firstSlot });
    });
    const whole = buffers.of(step.experts[0].out);
    return whole.rows === routing.slotCount ? whole : whole.rowRange(0, routing.slotCount);
  }

  /** The experts that are in memory now, by the linear steps of the first. */
  #matrices(
    { mixture, parts }: ExpertStream,
    cluster: readonly Work[],
    offsets: Uint32Array,
  ): ReadonlyMap<Step, ExpertMatrices> {
    return new Map(
      parts.map(({ step, within }) => {
        const maps = step.maps.map(({ map }) => ({ name: map.role, rows: map.rows }));
        const placed = {
          ...{ format: this.weights, cols: step.maps[0].map.cols, parts: maps, experts: mixture.experts.length },
          offsets: new Map(cluster.map(({ expert }, w) => [expert, offsets[w] + within])),
          biases: this.biases.get(step),
        };
        return [step, this.area.experts(placed)];
      }),
    );
  }
}

/** The experts that rows are sent to, in the order of their slots. */
function workOf({ experts }: RoutedSlots): Work[] {
  const work: Work[] = [];
  for (let firstSlot = 0; firstSlot < experts.length; ) {
    let endSlot = firstSlot + 1;
    while (endSlot < experts.length && experts[endSlot] === experts[firstSlot]) endSlot++;
    work.push({ expert: experts[firstSlot], firstSlot, endSlot });
    firstSlot = endSlot;
  }
  return work;
}

const slotRange = ({ rows, experts, weights: shares }: RoutedSlots, first: number, end: number): RoutedSlots => ({
  rows: rows.slice(first, end),
  experts: experts.slice(first, end),
  weights: shares.slice(first, end),
});
