import { Option } from "commander";
import { directoryFiles, resolveModel } from "../../io/index.node.js";
import { mergeAdapterToDirectory } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption, outputOption } from "../compressionOptions.js";
import { facts, printable } from "../format.js";
import { modelArgument } from "../options.js";

interface MergeOptions extends CommonOptions {
  adapter: string;
  keepMask?: boolean;
  output: string;
  force?: boolean;
}

export const command: CommandDefinition<MergeOptions> = {
  description:
    "Adds a LoRA adapter to the weights it was trained beside, or multiplies those of an IA³ adapter in, and writes a model " +
    "directory with plain values of the types that the model has. The adapter may come from finetune --lora or from PEFT. " +
    "--keep-mask leaves zeros zeros: for a pruned model.",
  arguments: [modelArgument],
  options: [
    new Option("--adapter <dir>", "directory with adapter_config.json").makeOptionMandatory(),
    new Option("--keep-mask", "zeros of the weights stay zero"),
    outputOption(),
    forceOption(),
  ],
  examples: ["rarefy merge tiny-6m --adapter tiny-lora -o tiny-merged"],
  async run(context, { adapter, keepMask, output, force }, [argument]) {
    const files = await resolveModel(argument, context);
    const { signal, onProgress } = context;
    const options = { keepZeros: keepMask, force, signal, onProgress };
    const result = await mergeAdapterToDirectory(files, directoryFiles(adapter), output, options);
    context.print(
      `${facts([
        ["model", printable(result.model)],
        ["adapter", `${printable(result.adapter)}, ${result.kind}`],
        ["changed", `${result.maps} matrices`],
        ["wrote", output],
      ])}\n`,
    );
    return result;
  },
};
