import { Option } from "commander";
import { readText, resolveModel } from "../../io/index.node.js";
import { type ExitsDirectory, trainExitsToDirectory } from "../../jobs/index.js";
import { calibrationText } from "../calibrationTokens.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption } from "../compressionOptions.js";
import { digits, percent, table } from "../format.js";
import { integer } from "../numbers.js";
import {
  bosOption,
  calibrationWindowsOption,
  type ExitsOption,
  exitsOption,
  type MachineOptions,
  machineOptions,
  modelArgument,
  textOption,
  type WeightsOption,
  weightsOption,
  windowOption,
} from "../options.js";

interface ExitsOptions extends CommonOptions, MachineOptions, WeightsOption, ExitsOption {
  text: string;
  window: number;
  calibrationWindows: number;
  bos?: boolean;
  from: number;
  every: number;
  output: string;
  force?: boolean;
}

export const command: CommandDefinition<ExitsOptions> = {
  description:
    "Trains early exit (AdaInfer): runs the model over windows of a text, looks behind every layer how probable the most probable " +
    "next token is and how far it is ahead, and learns from that whether all layers would choose the same: a linear SVM for each " +
    "layer, and a CRF over the layers that are looked at. OUT becomes a complete model directory: the same weights, linked or " +
    "copied, and a rarefy.json with what was learned; run, eval and bench then let tokens leave with no flags. Thresholds, pattern " +
    "and policy of MODEL stay. Looking costs a read of the output matrix each time: bench tells whether it pays.",
  arguments: [modelArgument],
  options: [
    new Option("-o, --output <dir>", "directory to write").makeOptionMandatory(),
    textOption("to train on, like what the model will read").makeOptionMandatory(),
    exitsOption("the rule that OUT runs with, where nothing else is asked for (default: svm)"),
    new Option("--from <n>", "crf: layers before its first look; 0: a quarter of all")
      .argParser(integer({ min: 0 }))
      .default(0),
    new Option("--every <n>", "crf: layers from look to look; 0: an eighth of all")
      .argParser(integer({ min: 0 }))
      .default(0),
    windowOption(),
    calibrationWindowsOption(),
    bosOption("in front of each window"),
    weightsOption(),
    ...machineOptions(),
    forceOption(),
  ],
  examples: [
    "rarefy exits tiny-6m --text tiny-6m:calib -o tiny-exits",
    "rarefy exits tiny-6m --text tiny-6m:calib --exits crf:from=4,every=1 --from 4 --every 1 -o tiny-exits-crf",
  ],
  async run(context, options, [argument]) {
    const { signal, onProgress } = context;
    const { text: path, output, exits, bos, json: _json, quiet: _quiet, verbose: _verbose, ...settings } = options;
    const text = await readText(path);
    const source = await resolveModel(argument, context);
    const trained = await trainExitsToDirectory(source, output, {
      ...settings,
      rule: exits?.text,
      text: () => calibrationText(context, source, { text, name: path }, { ...settings, bos }),
      signal,
      onProgress,
    });
    context.print(render(trained));
    return trained;
  },
};

function render({ output, rule, exits }: ExitsDirectory): string {
  const { layers, crf, calibration } = exits;
  type Row = (typeof layers)[number];
  const rows = table(
    [
      { title: "behind\nlayer", cell: (row: Row) => String(row.layers) },
      { title: "same choice\nas all layers", cell: (row) => percent(row.agreement, 1) },
      { title: "svm\ngap", cell: ({ svm }) => digits(svm.gap, 3) },
      { title: "svm\ntop", cell: ({ svm }) => digits(svm.top, 3) },
      { title: "svm\nbias", cell: ({ svm }) => digits(svm.bias, 3) },
    ],
    layers,
  );
  return [
    rows,
    "",
    `crf looks behind ${crf?.probed.join(", ")}. Trained on ${calibration.windows} windows of ${calibration.window} tokens.`,
    `Wrote ${output}, which runs with ${rule}. What it costs: rarefy eval ${output} --text FILE --against dense`,
    "",
  ].join("\n");
}
