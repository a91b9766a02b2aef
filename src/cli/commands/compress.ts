import { Option } from "commander";
import type { CommandDefinition } from "../command.js";
import { compressFromCommand } from "../compression.js";
import {
  type CompressionOptions,
  compressionOptions,
  forceOption,
  outputOption,
  readRecipe,
  restartOption,
} from "../compressionOptions.js";
import { modelArgument } from "../options.js";

interface CompressOptions extends CompressionOptions {
  recipe: string;
  output: string;
  restart?: boolean;
  force?: boolean;
}

export const command: CommandDefinition<CompressOptions> = {
  description:
    "Runs the stages of a recipe on every block. A recipe is a YAML or JSON file (docs/compress.md) or the name of a preset. " +
    "Before anything is written the whole recipe is checked against the model and all problems are told at once. Killed or " +
    "stopped, the same command goes on and ends the same to the bit.",
  arguments: [modelArgument],
  options: [
    outputOption(),
    new Option("--recipe <file|preset>", "what to do; rarefy presets lists the presets").makeOptionMandatory(),
    ...compressionOptions(),
    restartOption(),
    forceOption(),
  ],
  examples: [
    "rarefy compress tiny-6m --recipe sparsegpt-2:4-q8 --calib tiny-6m:calib -o tiny-24-q8",
    "rarefy compress tiny-6m --recipe recipe.yaml --calib tiny-6m:calib --text tiny-6m:eval -o tiny-out",
  ],
  async run(context, options, [model]) {
    return compressFromCommand(context, "compress", model, await readRecipe(options.recipe), options.output, options);
  },
};
