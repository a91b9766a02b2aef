import { InvalidArgumentError, Option } from "commander";
import { parseRecipe, parseRecipeText, presetRecipe, presets, type Recipe } from "../compress/index.js";
import { UsageError } from "../core/index.js";
import { readText } from "../io/index.node.js";
import type { DeviceId } from "../kernels/index.js";
import type { CommonOptions } from "./command.js";
import { integer } from "./numbers.js";
import { bosOption, deviceOption, maxWindowsOption } from "./options.js";
import { type TaskCommandOptions, taskOptions } from "./taskOptions.js";
import { defaultThreads } from "./threads.js";

/** What every command that compresses takes. */
export interface CompressionOptions extends CommonOptions, TaskCommandOptions {
  calib?: string;
  window?: number;
  calibrationWindows?: number;
  bos?: boolean;
  seed?: number;
  store: "packed" | "dense";
  dtype?: "F32" | "BF16" | "F16";
  text?: string;
  maxWindows: number;
  device: DeviceId;
  threads: number;
}

const dtypes = { f32: "F32", bf16: "BF16", f16: "F16" } as const;

export const compressionOptions = () => [
  new Option("--calib <file>", "UTF-8 text to calibrate on, like what the model will read"),
  new Option(
    "--window <n>",
    "tokens of a window, of calibration and evaluation (default: the recipe's, else 512)",
  ).argParser(integer({ min: 4 })),
  new Option("--calibration-windows <n>", "windows of calibration text (default: the recipe's, else 64)").argParser(
    integer({ min: 1 }),
  ),
  bosOption("in front of each calibration window"),
  new Option("--seed <n>", "draw the calibration windows from the whole text (default: take the first)").argParser(
    integer({ min: 0 }),
  ),
  new Option("--text <file>", "UTF-8 text to evaluate on, before and after"),
  maxWindowsOption(40),
  ...taskOptions(),
  new Option("--store <how>", "packed: the smallest exact encoding; dense: plain safetensors, which other tools read")
    .choices(["packed", "dense"])
    .default("packed"),
  new Option(
    "--dtype <type>",
    "type of stored values that are not codes: f32, bf16 or f16 (default: the model's)",
  ).argParser((text) => {
    if (Object.hasOwn(dtypes, text)) return dtypes[text as keyof typeof dtypes];
    throw new InvalidArgumentError("Give f32, bf16 or f16.");
  }),
  deviceOption("what runs the windows of calibration and evaluation, while the CPU solves"),
  new Option("--threads <n>", "CPU threads")
    .argParser(integer({ min: 1, max: 256 }))
    .default(defaultThreads(), "one per physical core, at most 16"),
];

export const outputOption = () => new Option("-o, --output <dir>", "directory to write").makeOptionMandatory();

/** What a command may replace. */
export const forceOption = () =>
  new Option("--force", "replace what another command, or other settings, texts or weights have left in OUT");

export const restartOption = () =>
  new Option("--restart", "begin anew, whatever an earlier run of the same command has left");

/** Which matrices a stage is for. */
export interface TargetOptions {
  target?: string[];
  ignore?: string[];
}
export const targetOptions = () => [
  new Option(
    "--target <glob...>",
    "matrices by name, * within and ** across dots (default: all projections of all blocks)",
  ),
  new Option("--ignore <glob...>", "matrices to leave alone"),
];
export const selection = ({ target, ignore }: TargetOptions) => ({
  ...(target && { targets: target }),
  ...(ignore && { ignore }),
});

export interface MethodOptions {
  option?: Record<string, unknown>;
}
export const methodOptionsOption = () =>
  new Option("--option <name=value...>", "option of the method; rarefy presets --methods lists them").argParser(
    (text: string, previous: Record<string, unknown> = {}) => {
      const at = text.indexOf("=");
      if (at < 1) throw new InvalidArgumentError("Give name=value.");
      return { ...previous, [text.slice(0, at)]: parsedValue(text.slice(at + 1)) };
    },
  );

/** Numbers, truth values and JSON as such, other words as text. */
function parsedValue(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A recipe of one stage. */
export const recipeOf = (stage: object): Recipe => parseRecipe({ version: 1, stages: [stage] }, "the command line");

/** A preset by name, or a recipe file. */
export async function readRecipe(argument: string): Promise<Recipe> {
  if (Object.hasOwn(presets, argument)) return presetRecipe(argument);
  if (!/[./\\]/.test(argument)) {
    throw new UsageError(`"${argument}" is neither a preset (${Object.keys(presets).join(", ")}) nor a recipe file`);
  }
  return parseRecipeText(await readText(argument), argument);
}

/** The recipe with what the command line says about calibration. */
export function withCalibration(recipe: Recipe, { window, calibrationWindows, seed }: CompressionOptions): Recipe {
  return {
    ...recipe,
    ...(seed !== undefined && { seed }),
    calibration: {
      ...recipe.calibration,
      ...(window !== undefined && { window }),
      ...(calibrationWindows !== undefined && { windows: calibrationWindows }),
      ...(seed !== undefined && { order: "random" as const }),
    },
  };
}
