import { breathe, type JobOptions, Stage } from "../../core/index.js";
import type {
  Cell,
  CellResult,
  Experiment,
  ExperimentReport,
  ExperimentTexts,
  FinishedCell,
  Scale,
} from "./contract.js";

/** Where finished cells are kept, so that a stopped experiment goes on where it stood. */
export interface CellStore {
  /** undefined when the cell was not finished, or was run with other settings. */
  load(cell: Cell): Promise<CellResult | undefined>;
  save(cell: Cell, result: CellResult): Promise<void>;
}

export interface ExperimentOptions extends JobOptions {
  scale: Scale;
  /** Default: what the experiment has for the scale. */
  seeds?: number;
  readText: ExperimentTexts;
  store: CellStore;
}

/** Runs the cells that are not in the store yet, one after the other, then reports on all. */
export async function runExperiment(
  experiment: Experiment,
  { scale, seeds = experiment.seeds[scale], readText, store, signal, onProgress }: ExperimentOptions,
): Promise<{ cells: FinishedCell[]; report: ExperimentReport }> {
  const plan = experiment.plan(scale, seeds);
  const stage = new Stage(`experiment ${experiment.id}`, plan.length, "runs", onProgress);
  const cells: FinishedCell[] = [];
  for (const cell of plan) {
    await breathe(signal);
    let result = await store.load(cell);
    if (result === undefined) {
      result = await experiment.run(cell, { signal, readText });
      await store.save(cell, result);
    }
    cells.push({ ...cell, result });
    stage.advance(1, cell.key);
  }
  return { cells, report: await experiment.report(cells, scale) };
}
