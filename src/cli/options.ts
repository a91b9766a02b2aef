import { InvalidArgumentError, Option } from "commander";
import { quote, UsageError } from "../core/index.js";
import type { RankKind } from "../jobs/index.js";
import { rankKinds } from "../jobs/internal.js";
import { type DeviceId, devices } from "../kernels/index.js";
import { type Structure, structures } from "../model/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import {
  type Attention,
  attentionPatterns,
  type Choosable,
  type Exits,
  exitRules,
  type KvChoice,
  kvPolicies,
  type PrefillPolicy,
  parseAttention,
  parseExits,
  parseKv,
  parseSparsity,
  type Sparsity,
  sparsityKinds,
  usage,
} from "../runtime/index.js";
import { bytes, integer, number } from "./numbers.js";
import { defaultThreads } from "./threads.js";

/**
 * Options that several commands share, so that a name means the same everywhere. Each is a function that makes fresh
 * commander options, beside the type of what they parse to.
 */

/** What every command that takes a model calls it. */
export const modelArgument = [
  "MODEL",
  "directory in Hugging Face layout, .gguf file, or Hub id org/name[@revision]",
] as const;

export interface MachineOptions {
  threads: number;
  device: DeviceId;
  structure: Structure;
}
export const machineOptions = () => [
  new Option("--threads <n>", "CPU threads")
    .argParser(integer({ min: 1, max: 256 }))
    .default(defaultThreads(), "one per physical core, at most 16"),
  deviceOption("what computes"),
  structureOption(),
];

/** @param use what the device does in this command */
export const deviceOption = (use: string) =>
  new Option("--device <id>", `${use}; webgpu needs the npm package webgpu, auto is webgpu where a GPU is found`)
    .choices(Object.keys(devices))
    .default("cpu");

export const structureOption = () =>
  new Option("--structure <id>", "how weights with zeros lie in memory; auto measures what is fastest here")
    .choices(structures)
    .default("auto");

/** Where the experts of a mixture are run. */
export interface ExpertRanksOption {
  expertRanks?: { ranks: number; over: RankKind };
}
export const expertRanksOption = () =>
  new Option(
    "--expert-ranks <n>",
    "spread the experts of a mixture over n ranks, each of which holds its share only: this process and worker threads, or " +
      "with processes:n child processes. The numbers stay the same",
  ).argParser(
    chosenBy((text) => {
      const [, over = "threads", ranks] = /^(?:([a-z]+):)?([0-9]{1,3})$/.exec(text) ?? [];
      const kind = rankKinds.find((name) => name === over);
      if (kind === undefined || !(Number(ranks) >= 2)) {
        throw new UsageError(`${quote(text)}; expected 2 or more, as 4, ${rankKinds.join(":4 or ")}:4`);
      }
      return { ranks: Number(ranks), over: kind };
    }),
  );

export interface WeightsOption {
  weights?: WeightFormatId;
}
export const weightsOption = () =>
  new Option(
    "--weights <format>",
    "format of the weights in memory (default: what rarefy.json names, else bf16)",
  ).choices(Object.keys(weightFormats));

/** How much of a model that `offload` has written is in memory. */
export interface ResidentOption {
  residentBytes?: number;
  predict?: number | true;
}
export const residentOptions = () => [
  new Option(
    "--resident-bytes <n>",
    "of a model that offload has written: bytes of weights in memory at any time, as 4G; the rest is read as it is needed",
  ).argParser(bytes),
  new Option(
    "--predict [score]",
    "with --resident-bytes: read and compute only neurons whose score by the predictors beside the model is above this (default: 0, a chance of one half)",
  ).argParser(number({ min: -1000, max: 1000 })),
];

/** Adapters that run beside the weights of a model. */
export interface AdapterOption {
  adapter?: string[];
}
export const adapterOption = () =>
  new Option("--adapter <dir...>", "LoRA adapters of PEFT or finetune --lora, beside the weights; several add up");

export const textOption = (use: string) => new Option("--text <file>", `UTF-8 text ${use}`);

/** Tokens of a text that timing reads, however few windows of it are measured. */
export const timedTokens = 512;

export const windowOption = () =>
  new Option("--window <n>", "tokens of a window").argParser(integer({ min: 2 })).default(512);

export const calibrationWindowsOption = () =>
  new Option("--calibration-windows <n>", "windows of calibration text, from its start")
    .argParser(integer({ min: 1 }))
    .default(32);

export const maxWindowsOption = (preset: number) =>
  new Option("--max-windows <n>", "windows of evaluation text at most, from its start")
    .argParser(integer({ min: 1 }))
    .default(preset);

/** @param where the token goes in this command */
export const bosOption = (where: string) =>
  new Option("--bos", `put the begin-of-text token ${where}, as the model sees it in run`);

/** What tokens see, and what is held of them. */
export interface AttentionOptions {
  attention?: Attention;
  kv?: KvChoice;
}
export const attentionOptions = () => [
  new Option(
    "--attention <pattern>",
    `what tokens see (default: what rarefy.json names, else all): ${choices(attentionPatterns)}`,
  ).argParser(chosenBy(parseAttention)),
  new Option(
    "--kv <policy>",
    `what is held of a text (default: what rarefy.json names, else all): ${choices(kvPolicies)}`,
  ).argParser(chosenBy(parseKv)),
];

/** A share of inputs that count as 0, by the quantiles of a calibrated model: what a number means wherever it stands for a sparsity. */
export interface SparsityShare {
  readonly text: string;
  readonly share: number;
}

/** Which inputs of linear maps are skipped. */
export interface SparsityOption {
  sparsity?: Sparsity | SparsityShare;
}
export const sparsityOption = () =>
  new Option(
    "--sparsity <share|kind>",
    "which inputs of the blocks' linear maps are skipped (default: by the thresholds of rarefy.json, else the zeros that a " +
      "ReLU leaves): a share of zeros, as 0.4, by what calibrate has seen of the activations of this model; or " +
      choices(sparsityKinds),
  ).argParser(chosenBy((text) => (/^\d*\.?\d+$/.test(text) ? { text, share: Number(text) } : parseSparsity(text))));

/** Whether tokens leave early. */
export interface ExitsOption {
  exits?: Exits;
}
/** @param use what the rule does in this command */
export const exitsOption = (
  use = "behind which layers a generated token may leave (default: what rarefy.json names, else none)",
) => new Option("--exits <rule>", `${use}: ${choices(exitRules)}`).argParser(chosenBy((text) => parseExits(text)));

export const choices = (table: Readonly<Record<string, Choosable>>) =>
  Object.entries(table)
    .map(([name, entry]) => usage(name, entry))
    .join(" | ");

/** @throws InvalidArgumentError with what the parser says */
export const chosenBy =
  <T>(parse: (text: string) => T) =>
  (text: string): T => {
    try {
      return parse(text);
    } catch (error) {
      throw new InvalidArgumentError((error as Error).message);
    }
  };

export const repeatsOption = () =>
  new Option("--repeats <n>", "timed rounds; figures are their medians")
    .argParser(integer({ min: 1, max: 1000 }))
    .default(5);

export const seedOption = (use: string) => new Option("--seed <n>", use).argParser(integer({ min: 0 }));

/** @param use what the policy does in this command */
export const prefillOption = (use: string, preset: PrefillPolicy, words: string) =>
  new Option("--prefill <policy>", use).argParser(prefillPolicy).default(preset, words);

function prefillPolicy(text: string): PrefillPolicy {
  if (text === "dense" || text === "secondHalf") return text;
  const denseFirst = text.trim() === "" ? Number.NaN : Number(text);
  if (Number.isSafeInteger(denseFirst) && denseFirst >= 0) return { denseFirst };
  throw new InvalidArgumentError("Give dense, secondHalf, or the number of first tokens that stay dense.");
}
