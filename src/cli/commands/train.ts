import { trainingDefaults } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { trainFromCommand } from "../training.js";
import { type TrainingCommandOptions, trainingOptions } from "../trainingOptions.js";

interface TrainOptions extends CommonOptions, TrainingCommandOptions {}

export const command: CommandDefinition<TrainOptions> = {
  description:
    "Trains a decoder from scratch on a text: a config.json says how large it is, a tokenizer.json beside it how text becomes " +
    "tokens. The result is a model directory that every other command takes. A run that was stopped goes on where it stood " +
    "when the same command is given again, to the same weights, bit for bit.",
  arguments: [["CONFIG", "directory with config.json and tokenizer.json, or Hub id; weights in it are not read"]],
  options: trainingOptions(trainingDefaults.random),
  examples: [
    "rarefy train tiny-6m --text train.txt.xz --steps 5000 -o my-6m",
    "rarefy train my-mixtral-config --text train.txt --router relu -o my-remoe",
    "rarefy train tiny-6m --text train.txt --method rigl --method-option density=0.2 -o my-sparse-6m",
  ],
  run: (context, options, [model]) => trainFromCommand(context, model, "random", options),
};
