import type { CommandDefinition } from "../command.js";
import { benchCommand } from "./bench.js";
import { calibrateCommand } from "./calibrate.js";
import { demoCommand } from "./demo.js";
import { evalCommand } from "./eval.js";
import { experimentCommand } from "./experiment.js";
import { inspectCommand } from "./inspect.js";
import { runCommand } from "./run.js";

/** Every command, in the order in which help lists them. */
export const commands: readonly CommandDefinition[] = [
  demoCommand,
  inspectCommand,
  calibrateCommand,
  evalCommand,
  runCommand,
  benchCommand,
  experimentCommand,
];
