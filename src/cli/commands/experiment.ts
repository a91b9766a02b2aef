import { join } from "node:path";
import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import { experiments, openBullQueue, runExperimentCells, runExperimentDirectory } from "../../jobs/index.js";
import { type EngineDevice, type ResultTable, type Scale, scales } from "../../train/index.js";
import type { CommandDefinition, CommonOptions, Context } from "../command.js";
import { embeddedModel } from "../embedded.js";
import { facts, table } from "../format.js";
import { integer } from "../numbers.js";
import { queueModel, queueOption, queueText } from "../queueOptions.js";

interface ExperimentCommandOptions extends CommonOptions {
  scale: Scale;
  seeds?: number;
  texts: string;
  model: string;
  device: EngineDevice;
  threads: number;
  only?: string[];
  queue?: string;
  output?: string;
}

export const command: CommandDefinition<ExperimentCommandOptions> = {
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
    queueOption("let the workers of this queue run the cells (rarefy worker)"),
  ],
  examples: [
    "rarefy experiment list",
    "rarefy experiment run spirals --scale smoke -o out/spirals",
    "rarefy experiment run sinc --seeds 5 --threads 4 -o out/sinc",
    "rarefy experiment run spirals --queue redis://127.0.0.1:6379 -o out/spirals",
    "rarefy experiment run text-classification --scale gpu --device webgpu --texts texts -o out/classes",
  ],
  async run(context, options, [action, name, ...rest]) {
    if (action === "list" && name === undefined) return list(context);
    if (action !== "run" || name === undefined || rest.length > 0) {
      throw new UsageError("give 'list', or 'run' and the name of one experiment");
    }
    if (options.output === undefined) throw new UsageError("give the directory to write, -o OUT");
    const { output, only, scale, texts, model } = options;
    await using queue = options.queue === undefined ? undefined : await openBullQueue(options.queue, context);
    const workers = queue && {
      queue,
      model: queueModel(model),
      textPath: (name: string) => queueText(join(texts, name)),
    };
    const how = { ...options, workers, ...context };
    if (only !== undefined) {
      return {
        experiment: name,
        scale,
        cells: await runExperimentCells(name, output, only, how),
      };
    }
    const document = await runExperimentDirectory(name, output, how);
    context.print(`${document.tables.map(inWords).join("\n\n")}\n\n${join(output, "report.html")}\n`);
    return document;
  },
};

async function list(context: Context): Promise<object> {
  const all = await Promise.all(Object.values(experiments).map(async (load) => (await load()).experiment));
  const reads = (texts: readonly string[] = []) => (texts.length === 0 ? "" : ` (reads ${texts.join(", ")}: --texts)`);
  context.print(`${facts(all.map(({ id, title, texts }) => [id, `${title}${reads(texts)}`] as const))}\n`);
  return {
    experiments: all.map(({ id, title, description, seeds, texts = [] }) => ({ id, title, description, seeds, texts })),
  };
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
