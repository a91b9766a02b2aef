import { join } from "node:path";
import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import { makeDirectory, writeFileAtomic } from "../../io/index.node.js";
import { svgFile } from "../../report/internal.js";
import {
  type EngineDevice,
  type Experiment,
  type ExperimentOptions,
  experiments,
  htmlPage,
  markdownPage,
  planOf,
  type ResultTable,
  runCells,
  runExperiment,
  type Scale,
  scales,
  stopEngine,
} from "../../train/index.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { embeddedModel } from "../embedded.js";
import { cellFiles, cellInputs, modelIdentity } from "../experimentFiles.js";
import { ExperimentThreads } from "../experimentThreads.js";
import { facts, table } from "../format.js";
import { integer } from "../numbers.js";

interface ExperimentCommandOptions extends CommonOptions {
  scale: Scale;
  seeds?: number;
  texts: string;
  model: string;
  device: EngineDevice;
  threads: number;
  only?: string[];
  output?: string;
}

export const experimentCommand: CommandDefinition<ExperimentCommandOptions> = {
  name: "experiment",
  summary: "train small models sparse by a published protocol, set the results beside the published ones",
  description:
    "'list' names the experiments. 'run NAME' runs one: fixed seeds, a written protocol, and in OUT a report.md, report.html " +
    "and report.json with the tables beside the published ones and the figures as SVG. Finished runs are kept in OUT/cells; the " +
    "same command goes on where it was stopped.",
  arguments: [["ACTION...", "list, or run NAME"]],
  options: [
    new Option("-o, --output <dir>", "directory to write, or to go on in"),
    new Option("--scale <scale>", "smoke: seconds; laptop: one CPU core; gpu: the full protocol")
      .choices(scales)
      .default("laptop"),
    new Option("--seeds <n>", "repeats (default: what the experiment has for the scale)").argParser(
      integer({ min: 1, max: 1000 }),
    ),
    new Option("--texts <dir>", "where the text files of an experiment lie").default("."),
    new Option("--model <model>", "what an experiment that takes a model begins with").default(
      embeddedModel,
      "the embedded one",
    ),
    new Option("--device <id>", "where gradients are computed").choices(["wasm", "webgpu"]).default("wasm"),
    new Option("--threads <n>", "cells at once, on the CPU; those of an experiment that measures time run alone")
      .argParser(integer({ min: 1, max: 1024 }))
      .default(1),
    new Option(
      "--only <key...>",
      "run these cells and report nothing; processes with different ones may share an OUT at the same time",
    ),
  ],
  examples: [
    "rarefy experiment list",
    "rarefy experiment run spirals --scale smoke -o out/spirals",
    "rarefy experiment run sinc --seeds 5 --threads 4 -o out/sinc",
    "rarefy experiment run text-classification --scale gpu --device webgpu --texts texts -o out/classes",
  ],
  async run(context, options, [action, name, ...rest]) {
    if (action === "list" && name === undefined) return list(context);
    if (action !== "run" || name === undefined || rest.length > 0) {
      throw new UsageError("give 'list', or 'run' and the name of one experiment");
    }
    if (!Object.hasOwn(experiments, name)) {
      throw new UsageError(`there is no experiment ${name}; there are ${Object.keys(experiments).join(", ")}`);
    }
    if (options.output === undefined) throw new UsageError("give the directory to write, -o OUT");
    if (options.threads > 1 && options.device !== "wasm") {
      throw new UsageError("--threads share the CPU; on a GPU give --only to processes of their own");
    }
    const { experiment } = await experiments[name]();
    try {
      return await runAndReport(context, experiment, options.output, options);
    } finally {
      await stopEngine(options.device);
    }
  },
};

async function list(context: Context): Promise<object> {
  const all = await Promise.all(Object.values(experiments).map(async (load) => (await load()).experiment));
  context.print(`${facts(all.map(({ id, title }) => [id, title] as const))}\n`);
  return {
    experiments: all.map(({ id, title, description, seeds, texts = [] }) => ({ id, title, description, seeds, texts })),
  };
}

async function runAndReport(
  context: Context,
  experiment: Experiment,
  output: string,
  { scale, seeds, only, threads: count, texts, model, device }: ExperimentCommandOptions,
): Promise<object> {
  const cells = join(output, "cells");
  await makeDirectory(cells);
  const places = { texts, model, device };
  await using threads = new ExperimentThreads(count, { experiment: experiment.id, cells, ...places });
  const options: ExperimentOptions = {
    scale,
    seeds,
    model: experiment.usesModel && (await modelIdentity(model, context)),
    store: cellFiles(cells),
    ...(count > 1 && { elsewhere: threads }),
    ...cellInputs(places, context),
    ...context,
  };
  if (only !== undefined) return { experiment: experiment.id, scale, cells: await runSome(experiment, only, options) };
  const { report } = await runExperiment(experiment, options);
  const write = (name: string, text: string) => writeFileAtomic(join(output, name), new TextEncoder().encode(text));
  for (const { name, picture } of report.figures) await write(`${name}.svg`, svgFile(picture));
  const { protocol, tables, notes, figures } = report;
  const document = {
    experiment: experiment.id,
    scale,
    protocol: Object.fromEntries(protocol),
    tables,
    notes,
    figures: figures.map(({ name, title }) => ({ file: `${name}.svg`, title })),
  };
  await write("report.json", `${JSON.stringify(document, null, 2)}\n`);
  await write("report.md", markdownPage(experiment, scale, report));
  await write("report.html", htmlPage(experiment, scale, report));
  context.print(`${report.tables.map(inWords).join("\n\n")}\n\n${join(output, "report.html")}\n`);
  return document;
}

/** @throws UsageError for a cell that the experiment does not have */
async function runSome(experiment: Experiment, keys: readonly string[], options: ExperimentOptions) {
  const plan = planOf(experiment, options);
  const unknown = keys.find((key) => !plan.some((cell) => cell.key === key));
  if (unknown !== undefined) {
    throw new UsageError(`there is no cell ${unknown}; there are ${plan.map(({ key }) => key).join(", ")}`);
  }
  return runCells(
    experiment,
    plan.filter(({ key }) => keys.includes(key)),
    options,
  );
}

const inWords = ({ title, columns, rows }: ResultTable): string =>
  `${title}\n${table(
    columns.map((name, c) => ({
      title: name,
      cell: (row: readonly string[]) => row[c],
      align: c === 0 ? "left" : "right",
    })),
    rows,
  )}`;
