import { Option } from "commander";
import { quantizeMethods } from "../../compress/index.js";
import type { CommandDefinition } from "../command.js";
import { compressFromCommand } from "../compression.js";
import {
  type CompressionOptions,
  compressionOptions,
  forceOption,
  type MethodOptions,
  methodOptionsOption,
  outputOption,
  recipeOf,
  restartOption,
  selection,
  type TargetOptions,
  targetOptions,
} from "../compressionOptions.js";
import { integer } from "../numbers.js";
import { modelArgument } from "../options.js";

interface QuantizeOptions extends CompressionOptions, TargetOptions, MethodOptions {
  method: string;
  bits?: number;
  groupSize?: number;
  output: string;
  restart?: boolean;
  force?: boolean;
}

export const command: CommandDefinition<QuantizeOptions> = {
  description:
    "Rounds the weights of a model block by block and stores codes and scales. Symmetric groups of 32 in 8 or 4 bits (the " +
    "default) run as they are with --weights q8 and q4. Killed or stopped, the same command goes on.",
  arguments: [modelArgument],
  options: [
    outputOption(),
    new Option("--method <id>", "how weights are rounded").choices(Object.keys(quantizeMethods)).default("gptq"),
    new Option("--bits <n>", "bits per code (default: the method's)").argParser(integer({ min: 2, max: 8 })),
    new Option("--group-size <n>", "weights of a row that share a scale, 0: the row (default: 32)").argParser(
      integer({ min: 0 }),
    ),
    methodOptionsOption(),
    ...targetOptions(),
    ...compressionOptions(),
    restartOption(),
    forceOption(),
  ],
  examples: [
    "rarefy quantize tiny-6m --bits 4 --calib tiny-6m:calib --text tiny-6m:eval -o tiny-gptq-4",
    "rarefy quantize tiny-6m --method rtn --bits 8 -o tiny-rtn-8",
  ],
  async run(context, options, [model]) {
    const { method, bits, groupSize, option } = options;
    const recipe = recipeOf({
      type: "quantize",
      method,
      options: {
        ...(await packable(method)),
        ...(bits !== undefined && { bits }),
        ...(groupSize !== undefined && { groupSize }),
        ...option,
      },
      ...selection(options),
    });
    return compressFromCommand(context, "quantize", model, recipe, options.output, options);
  },
};

/** Scales that packed formats hold as they are, for the methods that leave the choice. */
async function packable(id: string): Promise<object> {
  const { method } = await quantizeMethods[id]();
  const wanted = { scaleType: "bf16" };
  return method.options.safeParse(wanted).success ? wanted : {};
}
