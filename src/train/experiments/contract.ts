import type { JobOptions } from "../../core/index.js";
import type { ModelFiles } from "../../io/index.js";
import type { Picture } from "../../report/internal.js";
import type { EngineDevice } from "../engine/engine.js";
import type { State } from "../state.js";

/** How much is run: "smoke" in seconds for tests, "laptop" on one CPU core, "gpu" the full protocol. */
export const scales = ["smoke", "laptop", "gpu"] as const;
/** One of `scales`. */
export type Scale = (typeof scales)[number];

/** JSON. */
export type CellResult = Record<string, unknown>;

/** One independent piece of an experiment: one setting with one seed. */
export interface Cell {
  /** A plain file name without extension; the same settings always give the same key. */
  key: string;
  seed: number;
  settings: Readonly<Record<string, string | number | boolean>>;
}

/** What a run of a cell left behind. Not part of the settings: the same cell may be run anywhere. */
export interface CellOutcome {
  result: CellResult;
  device: EngineDevice;
}

/** A cell with its result. */
export interface FinishedCell extends Cell, CellOutcome {}

/** A table of the report, cells as they are printed. */
export interface ResultTable {
  title: string;
  columns: readonly string[];
  rows: readonly (readonly string[])[];
}

export interface Figure {
  /** Plain file name without extension. */
  name: string;
  title: string;
  picture: Picture;
}

/** What an experiment came to, for its page and for report.json. */
export interface ExperimentReport {
  /** The protocol as it was run, "name: value" pairs. */
  protocol: readonly (readonly [name: string, value: string])[];
  tables: readonly ResultTable[];
  figures: readonly Figure[];
  /** What a reader must know to compare the figures with the published ones. */
  notes: readonly string[];
}

/** Text files that an experiment reads, by name, as the caller found them. */
export type ExperimentTexts = (name: string) => Promise<string>;

/** What all cells of a run share. */
export interface CellInputs {
  /** Where gradients are computed. */
  device: EngineDevice;
  readText: ExperimentTexts;
  /** The model that an experiment with `usesModel` begins with. */
  openModel(): Promise<ModelFiles>;
}

/** Where a long cell keeps its state while it runs, so that a stopped one goes on. */
export interface CellState {
  load(): Promise<State | undefined>;
  /** @param step how far it is; rises from save to save */
  save(step: number, state: State): Promise<void>;
}

export interface CellOptions extends JobOptions, CellInputs {
  state: CellState;
}

/** An experiment: one file, one line in index.ts. Cells depend on nothing but their settings, so they run in any order. */
export interface Experiment {
  id: string;
  title: string;
  /** One paragraph for `experiment list`. */
  description: string;
  /** Seeds of a full run at each scale. */
  seeds: Readonly<Record<Scale, number>>;
  /** Names of the text files it reads. */
  texts?: readonly string[];
  /** Its results are times, so that its cells must have the machine to themselves. */
  timed?: true;
  /** It begins with a model of the caller's. */
  usesModel?: true;
  /** @param model what tells the caller's model from others; it belongs to the settings of an experiment that uses one */
  plan(scale: Scale, seeds: number, model: string): Cell[];
  run(cell: Cell, options: CellOptions): Promise<CellResult>;
  report(cells: readonly FinishedCell[], scale: Scale): Promise<ExperimentReport>;
}
