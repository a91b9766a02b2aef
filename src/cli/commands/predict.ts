import { Option } from "commander";
import { readText, resolveModel } from "../../io/index.node.js";
import { predictToDirectory } from "../../jobs/index.js";
import { calibrationText } from "../calibrationTokens.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption, outputOption } from "../compressionOptions.js";
import { bytes, facts, percent, printable, table } from "../format.js";
import { integer, number } from "../numbers.js";
import { calibrationWindowsOption, modelArgument, windowOption } from "../options.js";
import { defaultThreads } from "../threads.js";

interface PredictOptions extends CommonOptions {
  calib: string;
  text?: string;
  rank: number;
  from: "own" | "before";
  balanced: boolean;
  passes: number;
  learningRate: number;
  score: number;
  window: number;
  calibrationWindows: number;
  threads: number;
  output: string;
  force?: boolean;
}

export const command: CommandDefinition<PredictOptions> = {
  description:
    "Trains, for every layer of a ReLU model, a small map of low rank that tells from what enters the MLP which neurons will be " +
    "active, and writes a model directory that has them. A run of a model that offload has written reads with --predict only those. " +
    "Prints how many of the active neurons are found (recall) and how many of those found are active (precision), on text that was not " +
    "trained on.",
  arguments: [modelArgument],
  options: [
    new Option("--calib <file>", "UTF-8 text to train on, like what the model will read").makeOptionMandatory(),
    outputOption(),
    new Option("--text <file>", "UTF-8 text to measure on (default: the last twentieth of the windows)"),
    new Option("--rank <n>", "rank of a predictor, a multiple of 4")
      .argParser(integer({ min: 4, max: 65536 }))
      .default(32),
    new Option(
      "--from <what>",
      "own: what enters the layer's MLP; before: what enters that of the layer before, to read earlier",
    )
      .choices(["own", "before"])
      .default("own"),
    new Option(
      "--no-balanced",
      "let idle neurons, which are most, count as much as active ones: misses more, reads less",
    ),
    new Option("--passes <n>", "passes over the text; 0 takes what the gate's own weights give")
      .argParser(integer({ min: 0, max: 1000 }))
      .default(4),
    new Option("--learning-rate <x>", "of Adam").argParser(number({ min: 0, aboveMin: true, max: 1 })).default(1e-3),
    new Option(
      "--score <x>",
      "score above which a neuron is predicted where recall and precision are measured; 0 is a chance of one half",
    )
      .argParser(number({ min: -1000, max: 1000 }))
      .default(0),
    windowOption(),
    calibrationWindowsOption(),
    new Option("--threads <n>", "CPU threads")
      .argParser(integer({ min: 1, max: 256 }))
      .default(defaultThreads(), "one per physical core, at most 16"),
    forceOption(),
  ],
  examples: ["rarefy predict relu-6m --calib notes.txt --text other.txt -o relu-predicted"],
  async run(context, options, [argument]) {
    const { signal, onProgress } = context;
    const { calib, text, output, score, window, calibrationWindows: windows, rank, from, balanced, passes } = options;
    const files = await resolveModel(argument, context);
    const tokens = async (path: string) =>
      calibrationText(context, files, { text: await readText(path), name: path }, options);
    const result = await predictToDirectory(files, output, {
      ...{ rank, from, balanced, passes, window, windows, threshold: score, learningRate: options.learningRate },
      text: await tokens(calib),
      ...(text !== undefined && { evaluation: await tokens(text) }),
      ...{ threads: options.threads, force: options.force, signal, onProgress },
    });
    const rows = table(
      [
        { title: "layer", cell: (row) => String(row.layer) },
        { title: "idle", cell: (row) => percent(row.zeroShare, 1) },
        { title: "recall", cell: (row) => percent(row.recall, 1) },
        { title: "precision", cell: (row) => percent(row.precision, 1) },
        { title: "predicted", cell: (row) => percent(row.predictedShare, 1) },
      ],
      result.layers.map((layer, l) => ({ layer: l, ...layer })),
    );
    const about = facts([
      ["model", printable(result.model)],
      [
        "predictors",
        `rank ${rank}, from ${from === "own" ? "the own layer" : "the layer before"}, ${bytes(result.byteLength)}`,
      ],
      ["wrote", output],
    ]);
    context.print(`${about}\n\n${rows}\n`);
    return result;
  },
};
