import { join } from "node:path";
import { type JobOptions, UsageError } from "../core/index.js";
import { makeDirectory, writeFileAtomic } from "../io/index.node.js";
import { svgFile } from "../report/internal.js";
import {
  type Experiment,
  type ExperimentOptions,
  experiments,
  type FinishedCell,
  htmlPage,
  markdownPage,
  planOf,
  type ResultTable,
  runCells,
  runExperiment,
  type Scale,
  stopEngine,
} from "../train/index.js";
import { cellFiles, cellInputs, type ExperimentPlaces, modelIdentity } from "./experimentFiles.js";
import { ExperimentThreads } from "./experimentThreads.js";

export interface ExperimentDirectoryOptions extends JobOptions, ExperimentPlaces {
  scale: Scale;
  /** Repeats. Default: what the experiment has for the scale. */
  seeds?: number;
  /** Cells at once, on the CPU; those of an experiment that measures time run alone. Default 1. */
  threads?: number;
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
    const write = (name: string, text: string) => writeFileAtomic(join(output, name), new TextEncoder().encode(text));
    for (const { name, picture } of figures) await write(`${name}.svg`, svgFile(picture));
    await write("report.json", `${JSON.stringify(document, null, 2)}\n`);
    await write("report.md", markdownPage(experiment, scale, report));
    await write("report.html", htmlPage(experiment, scale, report));
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
  return withCells(id, output, options, (experiment, cellOptions) => {
    const plan = planOf(experiment, cellOptions);
    const unknown = keys.find((key) => !plan.some((cell) => cell.key === key));
    if (unknown !== undefined) {
      throw new UsageError(`there is no cell ${unknown}; there are ${plan.map(({ key }) => key).join(", ")}`);
    }
    return runCells(
      experiment,
      plan.filter(({ key }) => keys.includes(key)),
      cellOptions,
    );
  });
}

async function withCells<T>(
  id: string,
  output: string,
  options: ExperimentDirectoryOptions,
  work: (experiment: Experiment, options: ExperimentOptions) => Promise<T>,
): Promise<T> {
  const experiment = await findExperiment(id);
  const { scale, seeds, threads: count = 1, texts, model, device, signal, onProgress } = options;
  if (count > 1 && device !== "wasm") {
    throw new UsageError("--threads share the CPU; on a GPU give --only to processes of their own");
  }
  const job = { signal, onProgress };
  const cells = join(output, "cells");
  await makeDirectory(cells);
  const places = { texts, model, device };
  await using threads = new ExperimentThreads(count, { experiment: id, cells, ...places });
  try {
    return await work(experiment, {
      scale,
      seeds,
      model: experiment.usesModel && (await modelIdentity(model, job)),
      store: cellFiles(cells),
      ...(count > 1 && { elsewhere: threads }),
      ...cellInputs(places, job),
      ...job,
    });
  } finally {
    await stopEngine(device);
  }
}
