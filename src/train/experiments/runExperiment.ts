import { breathe, type JobOptions, type ProgressEvent, Stage } from "../../core/index.js";
import type {
  Cell,
  CellInputs,
  CellOutcome,
  CellResult,
  CellState,
  Experiment,
  ExperimentReport,
  FinishedCell,
  Scale,
} from "./contract.js";

/** Where finished cells are kept, so that a stopped experiment goes on where it stood. */
export interface CellStore {
  /** undefined when the cell was not finished, or was run with other settings. */
  load(cell: Cell): Promise<CellOutcome | undefined>;
  save(cell: Cell, outcome: CellOutcome): Promise<void>;
  /** The state of a cell that is not finished; forgotten when the cell is saved. */
  stateOf(cell: Cell): CellState;
}

/** How much of an experiment is run, and where its cells are kept. */
export interface ExperimentOptions extends JobOptions, CellInputs {
  scale: Scale;
  /** Default: what the experiment has for the scale. */
  seeds?: number;
  /** What tells the model from others; see `Experiment.plan`. Default "". */
  model?: string;
  store: CellStore;
  /** Where cells are computed instead of here, several at once. What they give does not depend on it. */
  elsewhere?: CellThreads;
}

/** Threads, or anything else that computes cells on its own. */
export interface CellThreads {
  /** How many cells at once. */
  count: number;
  run(cell: Cell, options: JobOptions): Promise<CellResult>;
}

/** Cells of an experiment with these options, in their order. */
export const planOf = (
  experiment: Experiment,
  { scale, seeds = experiment.seeds[scale], model = "" }: Pick<ExperimentOptions, "scale" | "seeds" | "model">,
): Cell[] => experiment.plan(scale, seeds, model);

/** Runs those of `cells` that are not in the store yet, in their order. */
export async function runCells(
  experiment: Experiment,
  cells: readonly Cell[],
  { store, signal, onProgress, device, readText, openModel, elsewhere }: ExperimentOptions,
): Promise<FinishedCell[]> {
  const outcomes = new Map<Cell, CellOutcome>();
  for (const cell of cells) {
    await breathe(signal);
    const stored = await store.load(cell);
    if (stored !== undefined) outcomes.set(cell, stored);
  }
  const open = cells.filter((cell) => !outcomes.has(cell));
  const stage = new Stage(`experiment ${experiment.id}`, open.length, "runs", onProgress);
  const here: CellThreads = {
    count: 1,
    run: (cell, job) => experiment.run(cell, { ...job, device, readText, openModel, state: store.stateOf(cell) }),
  };
  const threads = experiment.timed ? here : (elsewhere ?? here);
  const runOne = async (cell: Cell, signal: AbortSignal) => {
    // Bars of several cells would hide each other and the time that is left.
    const inOneLine = ({ done, total, unit }: ProgressEvent) =>
      stage.advance(0, `${cell.key} ${done}${total === undefined ? "" : `/${total}`} ${unit}`);
    const job = { signal, onProgress: threads.count > 1 ? inOneLine : onProgress };
    const outcome = { result: await threads.run(cell, job), device };
    await store.save(cell, outcome);
    outcomes.set(cell, outcome);
    stage.advance(1, cell.key);
  };
  await forEachAtOnce(open, threads.count, runOne, signal);
  return cells.map((cell) => ({ ...cell, ...outcomes.get(cell)! }));
}

/**
 * Does the work of every item, `atOnce` at a time, begun in their order. The first failure stops the others, and all have
 * ended when it is thrown.
 */
async function forEachAtOnce<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T, signal: AbortSignal) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const failed = new AbortController();
  const stopped = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  let next = 0;
  const lane = async () => {
    try {
      while (next < items.length) {
        const item = items[next++];
        await breathe(stopped);
        await work(item, stopped);
      }
    } catch (reason) {
      failed.abort(reason);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
  failed.signal.throwIfAborted();
}

/** Runs the cells that are not in the store yet, then reports on all. */
export async function runExperiment(
  experiment: Experiment,
  options: ExperimentOptions,
): Promise<{ cells: FinishedCell[]; report: ExperimentReport }> {
  const cells = await runCells(experiment, planOf(experiment, options), options);
  const { protocol, ...rest } = await experiment.report(cells, options.scale);
  const devices = [...new Set(cells.map(({ device }) => device))].sort();
  return { cells, report: { protocol: [["device", devices.join(" and ")], ...protocol], ...rest } };
}
