import { Option } from "commander";
import { UsageError } from "../../core/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { modelArgument } from "../options.js";
import { trainFromCommand } from "../training.js";
import { type TrainingCommandOptions, trainingOptions } from "../trainingOptions.js";

interface FinetuneOptions extends CommonOptions, TrainingCommandOptions {
  keepMask?: boolean;
}

export const finetuneCommand: CommandDefinition<FinetuneOptions> = {
  name: "finetune",
  summary: "train a model on, dense, with the mask it has, or into a mask",
  description:
    "Trains the weights of a model on a text and writes a new model directory in the same layout. --keep-mask holds every zero " +
    "of the linear weights: what a pruned model needs. --method chooses how weights become sparse while they are trained " +
    "(straight-through, SR-STE, CAST, gradual, RigL …). A run that was stopped goes on where it stood when the same command " +
    "is given again, to the same weights, bit for bit.",
  arguments: [modelArgument],
  options: [
    new Option("--keep-mask", "zeros of linear weights stay zero; the same as --method fixed-mask"),
    ...trainingOptions({ rate: 1e-4, steps: 1000, warmup: 50 }),
  ],
  examples: [
    "rarefy finetune tiny-pruned --text train.txt --keep-mask --steps 500 -o tiny-recovered",
    "rarefy finetune tiny-6m --text train.txt.xz --method sr-ste --method-option pattern=2:4 decay=2e-4 -o tiny-2of4",
    "rarefy finetune tiny-6m --text train.txt --method cast --distil 0.33 --eval-text tiny-6m:eval -o tiny-cast",
  ],
  async run(context, options, [model]) {
    const { keepMask, ...settings } = options;
    if (keepMask && settings.method !== "dense") {
      throw new UsageError("--keep-mask is a method of its own; leave --method out");
    }
    const method = keepMask ? "fixed-mask" : settings.method;
    return trainFromCommand(context, model, "weights", { ...settings, method });
  },
};
