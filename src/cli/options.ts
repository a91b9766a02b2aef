import { Option } from "commander";
import { integer } from "./numbers.js";
import { defaultThreads } from "./threads.js";

/**
 * Options that several commands share, so that a name means the same everywhere. Each group comes as its type and as a
 * function that makes fresh commander options.
 */

export interface MachineOptions {
  threads: number;
  backend?: string;
}

export const machineOptions = () => [
  new Option("--threads <n>", "CPU threads (default: one per physical core, at most 16)")
    .argParser(integer({ min: 1, max: 256 }))
    .default(defaultThreads(), "cores"),
  new Option("--backend <id>", "what computes (default: the fastest this machine has)").choices(["wasm", "reference"]),
];
