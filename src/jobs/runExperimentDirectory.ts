import { join, resolve } from "node:path";
import { type JobOptions, UsageError } from "../core/index.js";
import { JobDirectory, type Lock, lockPath, makeDirectory, resolveModel, writeFilesAtomic } from "../io/index.node.js";
import { svgFile } from "../report/internal.js";
import {
  type Cell,
  type Experiment,
  type ExperimentOptions,
  type FinishedCell,
  type ResultTable,
  runCells,
  runExperiment,
  type Scale,
  stopEngine,
} from "../train/index.js";
import { htmlPage, markdownPage, planOf } from "../train/internal.js";
import { cellFiles, cellInputs, type ExperimentPlaces, modelIdentity } from "./experimentFiles.js";
import { cellsOverQueue, type ExperimentWorkers } from "./experimentJob.js";
import { experiments } from "./experiments/index.js";
import { ExperimentThreads } from "./experimentThreads.js";

/** How much is run, and on what. */
export interface ExperimentDirectoryOptions extends JobOptions, ExperimentPlaces {
  scale: Scale;
  /** Repeats. Default: what the experiment has for the scale. */
  seeds?: number;
  /** Cells at once, on the CPU; those of an experiment that measures time run alone. Default 1. */
  threads?: number;
  /** Have the cells computed elsewhere, on CPUs. Default: here. */
  workers?: ExperimentWorkers;
}

/** What an experiment came to; also in `report.json`. */
export interface ExperimentDocument {
  experiment: string;
  scale: Scale;
  protocol: Record<string, string>;
  tables: readonly ResultTable[];
  notes: readonly string[];
  /** Files beside the report. */
  figures: readonly { file: string; title: string }[];
}

/** An experiment by its id. @throws UsageError that names those there are */
export async function findExperiment(id: string): Promise<Experiment> {
  if (!Object.hasOwn(experiments, id)) {
    throw new UsageError(`there is no experiment ${id}; there are ${Object.keys(experiments).join(", ")}`);
  }
  return (await experiments[id]()).experiment;
}

/**
 * Runs the cells of an experiment that `output/cells` does not have yet, and writes report.md, report.html, report.json and the
 * figures. Killed or stopped, the same call goes on where it stood.
 * @throws UsageError for an experiment that is none
 */
export function runExperimentDirectory(
  id: string,
  output: string,
  options: ExperimentDirectoryOptions,
): Promise<ExperimentDocument> {
  return withCells(id, output, options, async (experiment, cellOptions) => {
    await using _lock = await lockPath(resolve(output));
    await using _cells = await lockCells(output, planOf(experiment, cellOptions));
    const { report } = await runExperiment(experiment, cellOptions);
    const { protocol, tables, notes, figures } = report;
    const { scale } = options;
    const document: ExperimentDocument = {
      experiment: id,
      scale,
      protocol: Object.fromEntries(protocol),
      tables,
      notes,
      figures: figures.map(({ name, title }) => ({ file: `${name}.svg`, title })),
    };
    const file = (name: string, text: string) => [join(output, name), new TextEncoder().encode(text)] as const;
    await writeFilesAtomic([
      ...figures.map(({ name, picture }) => file(`${name}.svg`, svgFile(picture))),
      file("report.json", `${JSON.stringify(document, null, 2)}\n`),
      file("report.md", markdownPage(experiment, scale, report)),
      file("report.html", htmlPage(experiment, scale, report)),
    ]);
    return document;
  });
}

/**
 * Runs some cells of an experiment and reports nothing: processes with different ones may share an output at the same time.
 * @throws UsageError for a cell that the experiment does not have
 */
export function runExperimentCells(
  id: string,
  output: string,
  keys: readonly string[],
  options: ExperimentDirectoryOptions,
): Promise<FinishedCell[]> {
  return withCells(id, output, options, async (experiment, cellOptions) => {
    const plan = planOf(experiment, cellOptions);
    const unknown = keys.find((key) => !plan.some((cell) => cell.key === key));
    if (unknown !== undefined) {
      throw new UsageError(`there is no cell ${unknown}; there are ${plan.map(({ key }) => key).join(", ")}`);
    }
    const chosen = plan.filter(({ key }) => keys.includes(key));
    await using _cells = await lockCells(output, chosen);
    return await runCells(experiment, chosen, cellOptions);
  });
}

/** No other process runs one of these cells. @throws BusyError */
async function lockCells(output: string, cells: readonly Cell[]): Promise<AsyncDisposable> {
  const locks: Lock[] = [];
  const release = async () => {
    for (const lock of locks) await lock.release();
  };
  try {
    for (const { key } of cells) locks.push(await lockPath(join(output, "cells", key)));
  } catch (error) {
    await release();
    throw error;
  }
  return { [Symbol.asyncDispose]: release };
}

async function withCells<T>(
  id: string,
  output: string,
  options: ExperimentDirectoryOptions,
  work: (experiment: Experiment, options: ExperimentOptions) => Promise<T>,
): Promise<T> {
  const experiment = await findExperiment(id);
  const { scale, seeds, threads: count = 1, texts, model, device, workers, signal, onProgress } = options;
  if (count > 1 && device !== "wasm") {
    throw new UsageError("`threads` share the CPU; on a GPU give `only` to processes of their own");
  }
  if (workers !== undefined && device !== "wasm") throw new UsageError("the workers of a queue compute on CPUs");
  const job = { signal, onProgress };
  const cells = join(output, "cells");
  // Files of other names may lie in it; a report of the user's is not written over.
  const directory = new JobDirectory(
    resolve(output),
    `experiment ${id}`,
    () => true,
    (names) => names.includes("cells"),
  );
  await directory.open();
  await makeDirectory(cells);
  const places = { texts, model, device };
  await using threads = new ExperimentThreads(count, { experiment: id, cells, ...places });
  try {
    const identity = experiment.usesModel && (await modelIdentity(await resolveModel(model, job)));
    const inputs = cellInputs(places, job);
    const plan = { scale, seeds, model: identity };
    const elsewhere =
      workers === undefined
        ? count > 1 && threads
        : await cellsOverQueue(experiment, workers, { ...plan, readText: inputs.readText });
    return await work(experiment, {
      ...plan,
      store: cellFiles(cells),
      ...(elsewhere && { elsewhere }),
      ...inputs,
      ...job,
    });
  } finally {
    await stopEngine(device);
  }
}
