import { parentPort, workerData } from "node:worker_threads";
import { FormatError, type ProgressEvent, RarefyError } from "../core/index.js";
import type { Cell, CellResult } from "../train/index.js";
import { cellFiles, cellInputs, type ExperimentPlaces } from "./experimentFiles.js";
import { experiments } from "./experiments/index.js";

/** What a thread needs to know to run cells of an experiment. */
export interface ThreadTask extends ExperimentPlaces {
  experiment: string;
  /** Directory of the finished cells and of the states of those that are not. */
  cells: string;
}

export type ToThread = { cell: Cell } | "stop";
export type FromThread = { progress: ProgressEvent } | Answer;
export type Answer = { result: CellResult } | { failure: Failure };

/** An error as a message: classes do not survive the way between threads. */
export type Failure =
  | { type: "format"; details: FormatError["details"] }
  | { type: "rarefy"; name: string; message: string }
  | { type: "other"; message: string; stack?: string };

const port = parentPort!;
const { experiment: id, cells, ...places } = workerData as ThreadTask;
let running: AbortController | undefined;

const post = (message: FromThread) => port.postMessage(message);

async function run(cell: Cell): Promise<Answer> {
  running = new AbortController();
  const { signal } = running;
  try {
    const { experiment } = await experiments[id]();
    const state = cellFiles(cells).stateOf(cell);
    const onProgress = (progress: ProgressEvent) => post({ progress });
    return { result: await experiment.run(cell, { signal, onProgress, ...cellInputs(places, { signal }), state }) };
  } catch (error) {
    return { failure: failureOf(error) };
  }
}

function failureOf(error: unknown): Failure {
  if (error instanceof FormatError) return { type: "format", details: error.details };
  if (error instanceof RarefyError) return { type: "rarefy", name: error.name, message: error.message };
  if (error instanceof Error) return { type: "other", message: error.message, stack: error.stack };
  return { type: "other", message: String(error) };
}

port.on("message", (message: ToThread) => {
  if (message === "stop") running?.abort();
  else void run(message.cell).then(post);
});
