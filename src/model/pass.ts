import type { AttendStep, RotateStep, Site } from "../arch/index.js";
import type { Activation, Backend, KvCache, RopeTable, Sight, Vector } from "../kernels/index.js";
import type { AdaptedRows } from "./adapterPairs.js";
import type { Buffers } from "./buffers.js";
import type { CacheContext, LayerContext } from "./layerContext.js";
import type { TokenHistory } from "./thin/history.js";
import type { BlockThresholds } from "./thresholds.js";
import type { FindSight, GateCounts, SequencePart, SlotRun, Tap } from "./types.js";

/** One block's pass over some rows: what its operations run on. */
export interface Pass {
  readonly backend: Backend;
  readonly layer: number;
  /** The residual stream [rows, hiddenSize]. */
  readonly x: Activation;
  readonly buffers: Buffers;
  /** Of some of the rows of the pass, for what routes them by themselves. */
  buffersFor(rows: number): Buffers;
  /** Of which sequences the rows are, in their order. Only attention and what turns by position look at it. */
  readonly parts: readonly PassPart[];
  readonly adapted: readonly AdaptedRows[];
  readonly thresholds: BlockThresholds | undefined;
  /** Working memory for some rows of inputs; the next one of that width and purpose takes it over. */
  scratch(rows: number, cols: number, purpose?: string): Activation;
  /** First row that the thresholds apply to. */
  readonly sparseFromRow: number;
  readonly tap: Tap | undefined;
  /** Whether keys and values are stored and nothing is attended to. */
  readonly keysOnly: boolean;
}

/** Rows of a pass that follow one another in one sequence. */
export interface PassPart {
  readonly firstRow: number;
  readonly rows: number;
  readonly cache: KvCache;
  /** Position of the first row, and its slot in the cache. */
  readonly start: number;
  readonly slot: number;
  /** Where the rows go in the cache, in their order; one run where their slots follow one another. */
  readonly places: readonly SlotRun[];
  /** What the rows see, by slots; undefined is causal. */
  sight(step: AttendStep): Sight | undefined;
  /** Where that depends on the queries. */
  readonly findSight: FindSight | undefined;
  table(step: RotateStep): RopeTable;
  /** Which of the tokens it holds are still needed, in a layer that prunes its context. */
  context(layer: number): LayerContext;
  /** What convolutions over positions have seen of its cache. */
  history(): TokenHistory;
}

/** What a block that prunes its context runs, and what it remembers by. */
export interface LoadedPruning {
  attention(sinks: Vector | undefined): Operation;
  /** What is remembered of a cache. @param steps that attend, of every layer */
  open(steps: readonly (AttendStep | undefined)[]): CacheContext;
}

/** Runs operations from … to − 1 of a block. */
export type RunOperations = (pass: Pass, from: number, to: number) => Promise<void>;

/** What lets tokens through parts of a block, or past them. */
export interface LoadedGates {
  /**
   * Runs the operations of a block before `end`.
   * @param ranges of operations that each gate is about @param parts what the pass was asked for
   * @throws UsageError where tokens go past attention, and something else tells by slots or pages what is seen
   */
  run(
    pass: Pass,
    run: RunOperations,
    end: number,
    ranges: readonly { readonly from: number; readonly to: number }[],
    parts: readonly Pick<SequencePart, "sights" | "places" | "findSight" | "slot">[],
  ): Promise<void>;
  /** See `Model.takeGateCounts`. @param of all blocks of a model, of which this is one */
  takeCounts(of: readonly LoadedGates[]): GateCounts;
  readonly counts: GateCounts;
}

/** One step, or several fused, ready to be enqueued. Only a tap, a router that the host reads and a dynamic sight are waited for. */
export type Operation = (pass: Pass) => void | Promise<void>;

/** Shows a buffer to the tap, if it wants to see the site, before what comes next. */
export function watch(
  pass: Pass,
  site: Site | undefined,
  buffer: string,
  next: () => void | Promise<void>,
): void | Promise<void> {
  const { tap, layer } = pass;
  if (site === undefined || !tap?.sites.includes(site.id)) return next();
  return tap.onActivation(layer, site.id, bufferOf(pass, buffer)).then(next);
}

/** The rows of a part. */
export const rowsOf = (activation: Activation, { firstRow, rows }: PassPart): Activation =>
  activation.rows === rows ? activation : activation.rowRange(firstRow, rows);

export const bufferOf = ({ x, buffers }: Pass, name: string): Activation => (name === "x" ? x : buffers.of(name));

/** Acts on part after part; waits only where there is something to wait for. */
export function eachPart(
  pass: Pick<Pass, "parts">,
  act: (part: PassPart) => void | Promise<void>,
  from = 0,
): void | Promise<void> {
  for (let p = from; p < pass.parts.length; p++) {
    const waiting = act(pass.parts[p]);
    if (waiting !== undefined) return waiting.then(() => eachPart(pass, act, p + 1));
  }
}
