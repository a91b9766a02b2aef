import { Option } from "commander";
import { readText, resolveModel } from "../../io/index.node.js";
import { type OffloadedDirectory, offloadToDirectory } from "../../jobs/index.js";
import { type OffloadLayout, offloadLayouts } from "../../model/index.js";
import { calibrationText } from "../calibrationTokens.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption, outputOption } from "../compressionOptions.js";
import { bytes, count, facts, percent, printable, table } from "../format.js";
import {
  calibrationWindowsOption,
  modelArgument,
  type WeightsOption,
  weightsOption,
  windowOption,
} from "../options.js";

interface OffloadCommandOptions extends CommonOptions, WeightsOption {
  layout?: OffloadLayout;
  parts?: boolean;
  calib?: string;
  window: number;
  calibrationWindows: number;
  output: string;
  force?: boolean;
}

export const command: CommandDefinition<OffloadCommandOptions> = {
  description:
    "Writes a model directory that runs in less memory than its weights take: beside the model, whose files are linked, the weights " +
    "of its MLPs or experts in bundles that are read as a token needs them. run, eval and bench take --resident-bytes with it. With --calib the use " +
    "of neurons or inputs is counted on a text, what is used most is kept in memory, and the placement is printed.",
  arguments: [modelArgument],
  options: [
    outputOption(),
    new Option(
      "--layout <id>",
      "neurons: gate, up and down of a neuron together, for ReLU models; inputs: columns of an input, for models with thresholds; " +
        "experts: an expert of a mixture (default: what suits the model)",
    ).choices(offloadLayouts),
    new Option("--parts", "the parts of a neuron apart from each other, to see what bundles gain"),
    new Option("--calib <file>", "UTF-8 text on which uses are counted"),
    windowOption(),
    calibrationWindowsOption(),
    weightsOption(),
    forceOption(),
  ],
  examples: [
    "rarefy offload tiny-sparse -o tiny-offloaded",
    "rarefy offload relu-6m --calib notes.txt -o relu-offloaded",
  ],
  async run(context, options, [argument]) {
    const { signal, onProgress } = context;
    const { output, layout, parts, calib, window, calibrationWindows: windows, weights, force } = options;
    const files = await resolveModel(argument, context);
    const text = calib === undefined ? undefined : await readText(calib);
    const calibration = text !== undefined && {
      text: await calibrationText(context, files, { text, name: calib }, options),
      window,
      windows,
    };
    const result = await offloadToDirectory(files, output, {
      ...{ weights, layout, bundled: !parts, force, signal, onProgress },
      ...(calibration && { calibration }),
    });
    context.print(render(result));
    return result;
  },
};

function render({ model, output, weights, layout, bundled, byteLength, unitBytes, uses }: OffloadedDirectory): string {
  const units = unitBytes.map(
    ({ of, bytes: size, units }) => `${count(units)} ${unitNames[of]} of ${bytes(size)} in a layer`,
  );
  const text = facts([
    ["model", printable(model)],
    ["bundles", `${bytes(byteLength)}, ${weights}, by ${layout}${bundled ? "" : ", parts apart"}: ${units.join(", ")}`],
    ["wrote", output],
  ]);
  if (uses === undefined) return `${text}\n`;
  type Row = (typeof uses)[number];
  const shares = uses[0].placements.map(({ share }) => share);
  const rows = table<Row>(
    [
      { title: "layer", cell: ({ layer }) => String(layer) },
      { title: "units", cell: ({ of }) => unitNames[of], align: "left" },
      { title: "used by\na token", cell: ({ usedShare }) => percent(usedShare, 1) },
      ...shares.map((share, p) => ({
        title: `${percent(share)} hot:\nshare, cover`,
        cell: ({ placements, units: all }: Row) =>
          `${percent(placements[p].hot / all)}, ${percent(placements[p].covered)}`,
      })),
    ],
    uses,
  );
  const why =
    "What is used most stays in memory, over all layers by how often it was used: of each share of all units that stays, the share of a " +
    "layer's units that it comes to, and how much of the layer's use they cover. The rest is cold: read when needed, and dropped " +
    "when it was not used for longest.";
  return `${text}\n\n${rows}\n${why}\n`;
}

const unitNames: Readonly<Record<string, string>> = {
  neurons: "neurons",
  first: "inputs of gate and up",
  down: "inputs of down",
  experts: "experts",
};
