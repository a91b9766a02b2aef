import { InvalidArgumentError, Option } from "commander";
import type { AdapterSettings, TrainingSettings, trainingDefaults } from "../jobs/index.js";
import { distillationIds, gateUsages, miniLlmSchema, routings } from "../train/index.js";
import { forceOption } from "./compressionOptions.js";
import { integer, number } from "./numbers.js";

/** Options that `train` and `finetune` share. */
export interface TrainingCommandOptions extends TrainingSettings {
  text: string;
  evalText?: string;
  output: string;
  saveEvery: number;
  threads?: number;
  maxTokens?: number;
  dtype?: "f32" | "bf16";
  teacher?: string;
  adapter?: AdapterSettings;
  minillmOption?: Record<string, unknown>;
  force?: boolean;
}

/** @param defaults for training anew, or for going on */
export const trainingOptions = (defaults: (typeof trainingDefaults)[keyof typeof trainingDefaults]) => [
  new Option(
    "-o, --output <dir>",
    "model directory to write; OUT.run beside it holds the run while it lasts",
  ).makeOptionMandatory(),
  new Option(
    "--text <file>",
    "UTF-8 text to train on, .txt or .xz; documents end in a line <|endoftext|>. A .jsonl file holds records of prompt and response, of which the response is learnt",
  ).makeOptionMandatory(),
  new Option("--eval-text <file>", "text to measure the perplexity on, before and after"),
  new Option("--steps <n>", "optimiser steps").argParser(integer({ min: 1, max: 1e9 })).default(defaults.steps),
  new Option("--batch <n>", "sequences of a step").argParser(integer({ min: 1, max: 65_536 })).default(defaults.batch),
  new Option("--window <n>", "tokens of a sequence")
    .argParser(integer({ min: 2, max: 65_536 }))
    .default(defaults.window),
  new Option("--rate <x>", "peak learning rate of AdamW")
    .argParser(number({ min: 0, aboveMin: true }))
    .default(defaults.rate),
  new Option("--final-rate <x>", "rate at the end of the cosine (default: a tenth of the peak)").argParser(
    number({ min: 0 }),
  ),
  new Option("--warmup <n>", "steps of linear warm-up").argParser(integer({ min: 0 })).default(defaults.warmup),
  new Option("--weight-decay <x>", "decoupled decay of linear weights")
    .argParser(number({ min: 0 }))
    .default(defaults.weightDecay),
  new Option("--clip <x>", "longest gradient").argParser(number({ min: 0, aboveMin: true })).default(defaults.clip),
  new Option("--seed <n>", "decides the first weights and the order of windows")
    .argParser(integer({ min: 0 }))
    .default(defaults.seed),
  new Option("--save-every <n>", "steps between two stored states; Ctrl-C stores one too")
    .argParser(integer({ min: 1 }))
    .default(100),
  new Option("--max-tokens <n>", "tokens of the text to use, from its start").argParser(integer({ min: 2 })),
  new Option("--device <id>", "where gradients are computed").choices(["wasm", "webgpu"]).default(defaults.device),
  new Option(
    "--threads <n>",
    "CPU threads for steps that have kernels of their own; the result does not depend on it (default: the machine's)",
  ).argParser(integer({ min: 1, max: 64 })),
  new Option("--dtype <type>", "stored type of the trained weights (default: that of the model)").choices([
    "f32",
    "bf16",
  ]),
  new Option(
    "--method <id>",
    "how the weights are made sparse; rarefy presets --methods lists the ways and their options",
  ).default(defaults.method),
  new Option("--method-option <name=value...>", 'options of the method, the value as JSON: pattern="2:4"')
    .argParser(collect)
    .default({}),
  new Option(
    "--router <id>",
    "how tokens find their experts in a model that has them: own (as its config says), softmax (top-k), bias (top-k, balanced by biases), relu (ReMoE) (default: what the model was trained with, or own)",
  ).choices(routings),
  new Option(
    "--router-option <name=value...>",
    "options of the router: balance=0.01 zLoss=0.001, speed=, initial= factor=",
  )
    .argParser(collect)
    .default({}),
  new Option(
    "--input-density <x>",
    "Q-Sparse: share of the largest inputs of a token that every linear map sees (default: all)",
  ).argParser(number({ min: 0, aboveMin: true, max: 1 })),
  new Option(
    "--layer-gates <kind>",
    `adaptive gating: routers learn which tokens need which layers, and the runtime leaves the others out: ${gateUsages().join("; ")}; docs/depth.md says what they are`,
  ),
  new Option(
    "--distil <share>",
    "weight of learning from a teacher's predictions; 1 − share is that of the text",
  ).argParser(number({ min: 0, max: 1 })),
  new Option(
    "--distil-loss <id>",
    "kl: cover all that the teacher holds possible; reverse-kl: keep to what it holds likely; logits: match them; minillm: learn from texts that the student writes itself (default: kl)",
  ).choices(distillationIds),
  new Option(
    "--minillm-option <name=value...>",
    `options of minillm: ${Object.keys(miniLlmSchema.shape).join("=, ")}=; docs/distillation.md says what they are`,
  ).argParser(collect),
  new Option(
    "--match <name=value...>",
    "have blocks become like the teacher's: hidden=1 (weight of their hidden states), relations=0 (of the relations in their attention), relationHeads=, relative=true, layers=0:1,1:3 (student:teacher; default: spread evenly); docs/distillation.md says what they are",
  ).argParser(collectMatching),
  new Option("--temperature <x>", "divides the logits of teacher and student (default: 1)").argParser(
    number({ min: 0, aboveMin: true }),
  ),
  new Option("--teacher <model>", "directory or Hub id (default: the model itself, as it was before training)"),
  forceOption(),
];

/** As `collect`, with blocks as 0:1,1:3. */
function collectMatching(text: string, earlier?: Record<string, unknown>): Record<string, unknown> {
  const pairs = /^layers=(\d+:\d+(?:,\d+:\d+)*)$/.exec(text);
  if (pairs === null) return collect(text, earlier);
  return { ...earlier, layers: pairs[1].split(",").map((pair) => pair.split(":").map(Number)) };
}

function collect(text: string, earlier: Record<string, unknown> = {}): Record<string, unknown> {
  const at = text.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("Give name=value.");
  const value = text.slice(at + 1);
  let parsed: unknown = value;
  try {
    parsed = JSON.parse(value);
  } catch {
    // A bare word is a string.
  }
  return { ...earlier, [text.slice(0, at)]: parsed };
}
