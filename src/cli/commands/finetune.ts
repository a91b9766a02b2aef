import { InvalidArgumentError, Option } from "commander";
import { UsageError } from "../../core/index.js";
import { type AdapterSettings, trainingDefaults } from "../../jobs/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { modelArgument } from "../options.js";
import { trainFromCommand } from "../training.js";
import { type TrainingCommandOptions, trainingOptions } from "../trainingOptions.js";

interface FinetuneOptions extends CommonOptions, Omit<TrainingCommandOptions, "contextPruning"> {
  keepMask?: boolean;
  lora?: AdapterSettings | true;
  ia3?: AdapterSettings | true;
  molora?: AdapterSettings | true;
  mov?: AdapterSettings | true;
  merge?: boolean;
  stream?: boolean;
  contextPruning?: Record<string, unknown> | true;
}

/** "rank=8,alpha=16,targets=q_proj+v_proj" */
const adapterSettings =
  (kind: string) =>
  (text: string): AdapterSettings => {
    const options: Record<string, unknown> = {};
    let targets: string[] | undefined;
    for (const part of text.split(",")) {
      const [name, value] = [part.slice(0, part.indexOf("=")), part.slice(part.indexOf("=") + 1)];
      if (!part.includes("=") || name === "" || value === "")
        throw new InvalidArgumentError("Give name=value,… like rank=8,alpha=16,targets=q_proj+v_proj.");
      if (name === "targets") targets = value.split("+");
      else if (Number.isFinite(Number(value))) options[name] = Number(value);
      else options[name] = value.split("+");
    }
    return { kind, options, targets };
  };

/** "rank=64,weight=0.3" */
function numbersByName(text: string): Record<string, number> {
  const parts = text.split(",").map((part) => part.split("="));
  for (const [name, value, ...more] of parts) {
    if (name === "" || value === undefined || value === "" || more.length > 0 || !Number.isFinite(Number(value)))
      throw new InvalidArgumentError("Give name=number,… like rank=64,weight=0.3.");
  }
  return Object.fromEntries(parts.map(([name, value]) => [name, Number(value)]));
}

export const command: CommandDefinition<FinetuneOptions> = {
  description:
    "Trains the weights of a model on a text and writes a new model directory in the same layout. --keep-mask holds every zero " +
    "of the linear weights: what a pruned model needs. --method chooses how weights become sparse while they are trained " +
    "(straight-through, SR-STE, CAST, gradual, RigL …). With --lora, --ia3, --molora or --mov the weights stay and an adapter is trained beside them; " +
    "with --keep-mask too, what is learnt keeps the zeros and is merged. A run that was stopped goes on where it stood when the same command " +
    "is given again, to the same weights, bit for bit.",
  arguments: [modelArgument],
  options: [
    new Option("--keep-mask", "zeros of linear weights stay zero; the same as --method fixed-mask"),
    new Option(
      "--lora [settings]",
      "train pairs of low rank beside the weights: rank=8,alpha=16,targets=q_proj+v_proj; OUT is an adapter directory as PEFT has it",
    ).argParser(adapterSettings("lora")),
    new Option("--ia3 [settings]", "train factors of activations: targets=k_proj+v_proj+down_proj").argParser(
      adapterSettings("ia3"),
    ),
    new Option(
      "--molora [settings]",
      "train several pairs for every matrix, which a router weighs for each token (MoLoRA): experts=10,rank=4,alpha=16,topK=2,balance=0.01",
    ).argParser(adapterSettings("molora")),
    new Option(
      "--mov [settings]",
      "train several vectors of factors, which a router weighs for each token (MoV): experts=10,topK=2,balance=0.01",
    ).argParser(adapterSettings("mov")),
    new Option("--merge", "with --lora or --ia3: OUT is the model with what was learnt in its weights"),
    new Option(
      "--stream",
      "with --lora or --ia3: leave the weights as they are stored, q4 for instance, and decode one block at a time (QLoRA); slower, in little memory",
    ),
    new Option(
      "--context-pruning [settings]",
      "layers learn which earlier tokens are no longer needed, and the runtime lets go of those: rank=64,weight=0.3,bias=2,from=1,to=8,until=0.8",
    ).argParser(numbersByName),
    ...trainingOptions(trainingDefaults.weights),
  ],
  examples: [
    "rarefy finetune tiny-pruned --text train.txt --keep-mask --steps 500 -o tiny-recovered",
    "rarefy finetune tiny-6m --text train.txt --lora rank=8,alpha=16 --rate 1e-3 -o tiny-lora",
    "rarefy finetune tiny-6m --text tasks.jsonl --molora experts=10,rank=4 --rate 1e-3 -o tiny-molora",
    "rarefy finetune tiny-q4 --text train.txt --lora rank=8 --stream -o tiny-q4-lora",
    "rarefy finetune tiny-pruned --text train.txt --lora rank=16 --keep-mask -o tiny-recovered-lora",
    "rarefy finetune tiny-6m --text train.txt.xz --method sr-ste --method-option pattern=2:4 decay=2e-4 -o tiny-2of4",
    "rarefy finetune tiny-6m --text train.txt --context-pruning rank=16,weight=0.3 --steps 1000 -o tiny-context",
    "rarefy finetune tiny-6m --text train.txt --method cast --distil 0.33 --eval-text tiny-6m:eval -o tiny-cast",
  ],
  async run(context, options, [model]) {
    const { keepMask, lora, ia3, molora, mov, merge, stream, contextPruning: pruning, ...others } = options;
    const settings = { ...others, ...(pruning && { contextPruning: pruning === true ? {} : pruning }) };
    const [given, other] = Object.entries({ lora, ia3, molora, mov }).filter(([, one]) => one !== undefined);
    if (other !== undefined) throw new UsageError("--lora, --ia3, --molora or --mov, one of them");
    if (given === undefined && merge) throw new UsageError("--merge belongs to --lora or --ia3");
    if (given === undefined && stream) throw new UsageError("--stream belongs to --lora or --ia3");
    if (keepMask && settings.method !== "dense") {
      throw new UsageError("--keep-mask is a method of its own; leave --method out");
    }
    if (given !== undefined) {
      const [kind, asked] = given;
      const own = asked === true ? { kind, options: {} } : asked!;
      return trainFromCommand(context, model, "weights", {
        ...settings,
        adapter: { ...own, merge, stream, keepZeros: keepMask },
      });
    }
    const method = keepMask ? "fixed-mask" : settings.method;
    return trainFromCommand(context, model, "weights", { ...settings, method });
  },
};
