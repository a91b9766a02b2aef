import { InvalidArgumentError, Option } from "commander";
import { resolveModel } from "../../io/index.node.js";
import { type ShareLayersOptions, shareLayersToDirectory } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption, outputOption } from "../compressionOptions.js";
import { facts } from "../format.js";
import { modelArgument } from "../options.js";

interface ShareOptions extends CommonOptions {
  layers: NonNullable<ShareLayersOptions["layers"]>;
  start: NonNullable<ShareLayersOptions["start"]>;
  output: string;
  force?: boolean;
}

function layersOf(text: string): ShareOptions["layers"] {
  if (text === "all" || text === "sandwich") return text;
  if (/^\d{1,4}$/.test(text)) return Number(text);
  if (/^\d{1,4}(,\d{1,4})+$/.test(text)) return text.split(",").map(Number);
  throw new InvalidArgumentError("Give all, sandwich, a number of neighbours, or a list like 0,0,2,2.");
}

export const command: CommandDefinition<ShareOptions> = {
  description:
    "Lets layers share their weights, as ALBERT and the Subformer do: OUT holds them once, memory holds them once, and finetune trains " +
    "them once for all layers that have them. The result has to be trained before it is of use. rarefy export writes it for tools " +
    "that know no sharing, every layer with its own copy.",
  arguments: [modelArgument],
  options: [
    new Option(
      "--layers <which>",
      "all: one block for all; sandwich: the first and the last have their own; N: so many neighbours; 0,0,2,2: whose weights each layer has",
    )
      .argParser(layersOf)
      .default("sandwich"),
    new Option("--start <from>", "shared weights begin as the mean of their layers', or as those of the first")
      .choices(["mean", "first"])
      .default("mean"),
    outputOption(),
    forceOption(),
  ],
  examples: [
    "rarefy share tiny-6m --layers 2 -o tiny-pairs",
    "rarefy finetune tiny-pairs --text train.txt --distil 0.5 --teacher tiny-6m -o tiny-shared",
  ],
  async run(context, { layers, start, output, force }, [argument]) {
    const { signal, onProgress } = context;
    const source = await resolveModel(argument, context);
    const result = await shareLayersToDirectory(source, output, { layers, start, force, signal, onProgress });
    const { before, after } = result.numbers;
    context.print(
      `${facts([
        ["layers", result.layers.join(" ")],
        ["numbers", `${after} of ${before}, ${((100 * after) / before).toFixed(1)} %`],
        ["wrote", output],
      ])}\n`,
    );
    return result;
  },
};
