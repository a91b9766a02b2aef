import { Option } from "commander";
import { directoryFiles, resolveModel } from "../../io/index.node.js";
import { loraHubToDirectory } from "../../jobs/index.js";
import { type EngineDevice, searches } from "../../train/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { forceOption } from "../compressionOptions.js";
import { digits, facts, printable } from "../format.js";
import { integer, number } from "../numbers.js";
import { modelArgument } from "../options.js";
import { readTrainingTokens } from "../training.js";

interface LoraHubOptions extends CommonOptions {
  adapter: string[];
  text: string;
  output: string;
  optimizer: string;
  evaluations: number;
  seed: number;
  bound: number;
  penalty: number;
  window: number;
  maxWindows: number;
  device: EngineDevice;
  force?: boolean;
}

export const command: CommandDefinition<LoraHubOptions> = {
  description:
    "Makes one LoRA adapter of several for a new task (LoraHub): a search without gradients looks for a weight of each, by which " +
    "their matrices add up, with the smallest loss on a few examples. The result is an adapter like the others, in the layout of " +
    "PEFT: run and eval take it with --adapter, merge puts it into the weights. The adapters are of one rank and for the same " +
    "matrices. It is never worse on the examples than the model alone: that is where the search begins.",
  arguments: [modelArgument],
  options: [
    new Option("--adapter <dir...>", "LoRA adapters of finetune --lora or PEFT").makeOptionMandatory(),
    new Option(
      "--text <file>",
      "examples of the task: a .jsonl file of prompts and responses, of which the responses count, or a text, .txt or .xz",
    ).makeOptionMandatory(),
    new Option("-o, --output <dir>", "adapter directory to write").makeOptionMandatory(),
    new Option("--optimizer <id>", "how the weights are looked for")
      .choices(Object.keys(searches))
      .default("one-plus-one"),
    new Option("--evaluations <n>", "how often the loss is measured, that of the model alone counted")
      .argParser(integer({ min: 1, max: 1e6 }))
      .default(40),
    new Option("--seed <n>", "decides which weights are tried").argParser(integer({ min: 0 })).default(0),
    new Option("--bound <x>", "largest weight of an adapter, either way")
      .argParser(number({ min: 0, aboveMin: true }))
      .default(1.5),
    new Option("--penalty <x>", "what the mean of all |weights| is multiplied by and added to the loss")
      .argParser(number({ min: 0 }))
      .default(0.05),
    new Option("--window <n>", "tokens of an example").argParser(integer({ min: 2, max: 65_536 })).default(128),
    new Option("--max-windows <n>", "examples at most, from the first one").argParser(integer({ min: 1 })).default(64),
    new Option("--device <id>", "where losses are computed").choices(["wasm", "webgpu"]).default("wasm"),
    forceOption(),
  ],
  examples: ["rarefy lorahub tiny-6m --adapter lora-a lora-b lora-c --text few.jsonl -o lora-new"],
  async run(context, { adapter, text, output, ...options }, [argument]) {
    const files = await resolveModel(argument, context);
    const { signal, onProgress } = context;
    const result = await loraHubToDirectory(
      files,
      adapter.map((directory) => directoryFiles(directory)),
      output,
      {
        ...options,
        tokens: () => readTrainingTokens(context, files, text, options.window),
        signal,
        onProgress,
      },
    );
    const { adapters, weights, examples, lossBefore, loss } = result;
    context.print(
      `${facts([
        ["model", printable(result.model)],
        ...adapters.map((name, i) => [printable(name), `weight ${digits(weights[i], 3)}`] as const),
        ["loss", `${digits(lossBefore, 4)} before, ${digits(loss, 4)} after, on ${examples} examples`],
        ["wrote", output],
      ])}\n`,
    );
    return result;
  },
};
