import { Option } from "commander";
import { backends } from "../kernels/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";
import { integer } from "./numbers.js";
import { defaultThreads } from "./threads.js";

/**
 * Options that several commands share, so that a name means the same everywhere. Each is a function that makes a fresh
 * commander option, beside the type of what it parses to.
 */

export interface MachineOptions {
  threads: number;
  backend?: string;
}
export const machineOptions = () => [
  new Option("--threads <n>", "CPU threads (default: one per physical core, at most 16)")
    .argParser(integer({ min: 1, max: 256 }))
    .default(defaultThreads(), "the cores"),
  new Option("--backend <id>", "what computes (default: the fastest this machine has)").choices(Object.keys(backends)),
];

export interface WeightsOption {
  weights?: WeightFormatId;
}
export const weightsOption = () =>
  new Option(
    "--weights <format>",
    "format of the weights in memory (default: what rarefy.json says, else bf16)",
  ).choices(Object.keys(weightFormats));

export const textOption = (use: string) => new Option("--text <file>", `UTF-8 text ${use}`);

export const windowOption = (tokens: number) =>
  new Option("--window <n>", "tokens per window").argParser(integer({ min: 2 })).default(tokens);

export const seedOption = (use: string) =>
  new Option("--seed <n>", `seed ${use}`).argParser(integer({ min: 0 })).default(0);

/** What every command that takes a model calls it. */
export const modelArgument = ["MODEL", "directory in Hugging Face layout, or Hub id org/name[@revision]"] as const;
