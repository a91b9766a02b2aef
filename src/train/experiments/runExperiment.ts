import { breathe, type JobOptions, Stage } from "../../core/index.js";
import type {
  Cell,
  CellInputs,
  CellOutcome,
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

export interface ExperimentOptions extends JobOptions, CellInputs {
  scale: Scale;
  /** Default: what the experiment has for the scale. */
  seeds?: number;
  /** What tells the model from others; see `Experiment.plan`. Default "". */
  model?: string;
  store: CellStore;
}

/** Cells of an experiment with these options, in their order. */
export const planOf = (
  experiment: Experiment,
  { scale, seeds = experiment.seeds[scale], model = "" }: Pick<ExperimentOptions, "scale" | "seeds" | "model">,
): Cell[] => experiment.plan(scale, seeds, model);

/** Runs those of `cells` that are not in the store yet, one after the other. */
export async function runCells(
  experiment: Experiment,
  cells: readonly Cell[],
  { store, signal, onProgress, device, readText, openModel }: ExperimentOptions,
): Promise<FinishedCell[]> {
  const stage = new Stage(`experiment ${experiment.id}`, cells.length, "runs", onProgress);
  const finished: FinishedCell[] = [];
  for (const cell of cells) {
    await breathe(signal);
    let outcome = await store.load(cell);
    if (outcome === undefined) {
      const state = store.stateOf(cell);
      const result = await experiment.run(cell, { signal, onProgress, device, readText, openModel, state });
      outcome = { result, device };
      await store.save(cell, outcome);
    }
    finished.push({ ...cell, ...outcome });
    stage.advance(1, cell.key);
  }
  return finished;
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
