import { UsageError } from "../../core/index.js";
import { parseModelConfig, readJsonFile } from "../../io/index.js";
import { resolveModel } from "../../io/index.node.js";
import { decoderParameters, initialDecoder, randomFor, tensorsOfConfig } from "../../train/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { mixtureOf, type TrainingCommandOptions, trainingOptions } from "../trainingOptions.js";
import { trainingRun } from "../trainingRun.js";

interface TrainOptions extends CommonOptions, TrainingCommandOptions {}

export const trainCommand: CommandDefinition<TrainOptions> = {
  name: "train",
  summary: "train a language model from random weights, dense or sparse",
  description:
    "Trains a decoder from scratch on a text: a config.json says how large it is, a tokenizer.json beside it how text becomes " +
    "tokens. The result is a model directory that every other command takes. A run that was stopped goes on where it stood " +
    "when the same command is given again, to the same weights, bit for bit.",
  arguments: [["CONFIG", "directory with config.json and tokenizer.json, or Hub id; weights in it are not read"]],
  options: trainingOptions({ rate: 1e-3, steps: 2000, warmup: 100 }),
  examples: [
    "rarefy train models/tiny-6m --text train.txt.xz --steps 5000 -o my-6m",
    "rarefy train my-mixtral-config --text train.txt --router relu -o my-remoe",
    "rarefy train models/tiny-6m --text train.txt --method rigl --method-option density=0.2 -o my-sparse-6m",
  ],
  async run(context, options, [argument]) {
    if (options.distil !== undefined && options.teacher === undefined) {
      throw new UsageError("--distil needs --teacher MODEL here: random weights have nothing to teach");
    }
    const files = await resolveModel(argument, context);
    const raw = await readJsonFile(files, "config.json");
    const config = parseModelConfig(raw, `${files.location}/config.json`);
    const parameters = decoderParameters(await tensorsOfConfig(config), config.blocks);
    const weights = initialDecoder(parameters, randomFor(options.seed, "weights"));
    const mixture = mixtureOf(config, options);
    return trainingRun(
      context,
      "train",
      { files, config, parameters, weights, mixture, dtypeOf: () => "F32" },
      options,
    );
  },
};
