import type { CommandDefinition } from "../command.js";
import { benchCommand } from "./bench.js";
import { calibrateCommand } from "./calibrate.js";
import { classifyCommand } from "./classify.js";
import { compressCommand } from "./compress.js";
import { demoCommand } from "./demo.js";
import { embedCommand } from "./embed.js";
import { evalCommand } from "./eval.js";
import { experimentCommand } from "./experiment.js";
import { exportCommand } from "./export.js";
import { finetuneCommand } from "./finetune.js";
import { inspectCommand } from "./inspect.js";
import { mergeCommand } from "./merge.js";
import { presetsCommand } from "./presets.js";
import { pruneCommand } from "./prune.js";
import { quantizeCommand } from "./quantize.js";
import { reportCommand } from "./report.js";
import { runCommand } from "./run.js";
import { serveCommand } from "./serve.js";
import { sweepCommand } from "./sweep.js";
import { trainCommand } from "./train.js";

/** Every command, in the order in which help lists them. */
export const commands: readonly CommandDefinition[] = [
  demoCommand,
  inspectCommand,
  calibrateCommand,
  pruneCommand,
  quantizeCommand,
  compressCommand,
  sweepCommand,
  reportCommand,
  presetsCommand,
  exportCommand,
  evalCommand,
  runCommand,
  serveCommand,
  classifyCommand,
  embedCommand,
  benchCommand,
  trainCommand,
  finetuneCommand,
  mergeCommand,
  experimentCommand,
];
