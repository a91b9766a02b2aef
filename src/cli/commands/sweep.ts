import { Option } from "commander";
import { RarefyError, UsageError } from "../../core/index.js";
import { formatResultRows } from "../../eval/index.js";
import { readText, resolveModel } from "../../io/index.node.js";
import {
  openBullQueue,
  runSweep,
  type SweepLevel,
  type SweepWorkers,
  sweepCandidates,
  tokensSha256,
} from "../../jobs/index.js";
import { tokenizeText } from "../../text/index.js";
import { calibrationMaxTokens, calibrationTokens } from "../calibrationTokens.js";
import type { CommandDefinition } from "../command.js";
import {
  type CompressionOptions,
  compressionOptions,
  forceOption,
  outputOption,
  readRecipe,
  withCalibration,
} from "../compressionOptions.js";
import { modelArgument, repeatsOption, timedTokens, type WeightsOption, weightsOption } from "../options.js";
import { queueModel, queueOption, queueText, refuseWithQueue } from "../queueOptions.js";
import { parseLevels } from "../sweepLevels.js";
import { readTaskMeasure } from "../taskOptions.js";
import { openTokenizer } from "../tokenizer.js";

interface SweepCommandOptions extends CompressionOptions, WeightsOption {
  recipe: string[];
  sparsity?: SweepLevel[];
  keep?: boolean;
  queue?: string;
  force?: boolean;
  speed?: boolean;
  repeats: number;
  output: string;
}

export const command: CommandDefinition<SweepCommandOptions> = {
  description:
    "Runs every recipe at every sparsity, evaluates each result and the source on one text, and prints one table. OUT gets a " +
    "sweep.json with all rows, recipes and layers, for rarefy report. What is finished is not done again: killed or stopped, " +
    "the same command goes on in the middle of a candidate. Only times are taken anew, of all together, when a candidate joins.",
  arguments: [modelArgument],
  options: [
    outputOption(),
    new Option("--recipe <file|preset...>", "recipes to go through").makeOptionMandatory(),
    new Option(
      "--sparsity <levels>",
      "what to put into their prune and low-rank stages: 0.3..0.8, 0.3..0.8/0.05 or 0.5,0.7,2:4",
    ).argParser(parseLevels),
    new Option("--keep", "keep the models, each in a directory of its own"),
    new Option("--speed", "in the end, time prefill and decode of the source and all candidates in turn"),
    repeatsOption(),
    weightsOption(),
    ...compressionOptions(),
    queueOption("let the workers of this queue make and measure the candidates (rarefy worker)"),
    forceOption(),
  ],
  examples: [
    "rarefy sweep tiny-6m --recipe wanda-50 --sparsity 0.3..0.7/0.2 --calib tiny-6m:calib --text tiny-6m:eval --queue redis://127.0.0.1:6379 -o tiny-sweep",
    "rarefy sweep tiny-6m --recipe magnitude-50 wanda-50 sparsegpt-50 --sparsity 0.3..0.7/0.2 --calib tiny-6m:calib --text tiny-6m:eval -o tiny-sweep",
  ],
  async run(context, options, [model]) {
    const recipes = await Promise.all(
      options.recipe.map(async (name) => ({ name, recipe: withCalibration(await readRecipe(name), options) })),
    );
    const candidates = sweepCandidates(recipes, options.sparsity);
    if (options.text === undefined) throw new RarefyError("a sweep needs a text to measure on: give --text");
    // A text that is not there is told before a model is downloaded.
    const evaluation = await readText(options.text);
    const calibration = options.calib === undefined ? undefined : await readText(options.calib);
    const { text, calib, tasks, keep: kept, speed: timed } = options;
    if (options.queue !== undefined) refuseWithQueue({ tasks, keep: kept, speed: timed });
    const places =
      options.queue === undefined
        ? undefined
        : {
            model: queueModel(model),
            text: queueText(text),
            calib: calib === undefined ? undefined : queueText(calib),
          };
    await using queue = options.queue === undefined ? undefined : await openBullQueue(options.queue, context);
    const source = await resolveModel(model, context);
    const tokenizer = await openTokenizer(context, source);
    const { window, maxWindows, weights, store, dtype, device, threads, keep, force, speed, repeats, output } = options;
    const { signal, onProgress } = context;
    const asked = candidates.map(({ recipe }) => recipe.calibration);
    if (options.bos && new Set(asked.map((each) => each.window)).size > 1)
      throw new UsageError("the recipes ask for windows of different lengths; with --bos give one --window");
    const windows = {
      window: asked[0].window,
      windows: Math.max(...asked.map((each) => (each.windows * each.window) / asked[0].window)),
      order: asked.some((each) => each.order === "random") ? ("random" as const) : undefined,
    };
    const maxTokens = Math.max((window ?? 512) * maxWindows, timedTokens);
    const evaluationTokens = await tokenizeText(tokenizer, evaluation, {
      maxTokens,
      name: options.text,
      signal,
      onProgress,
    });
    const calibrated =
      calibration === undefined
        ? undefined
        : await calibrationTokens(context, source, {
            text: calibration,
            name: options.calib,
            windows,
            bos: options.bos,
          });
    const workers: SweepWorkers | undefined = queue &&
      places && {
        queue,
        model: places.model,
        evaluation: { path: places.text, maxTokens, tokensSha256: await tokensSha256(evaluationTokens) },
        calibration: calibrated && {
          path: places.calib!,
          maxTokens: calibrationMaxTokens(windows),
          beginWindows: options.bos ? windows.window : undefined,
          tokensSha256: await tokensSha256(calibrated),
        },
      };
    const document = await runSweep(source, output, {
      candidates,
      evaluation: evaluationTokens,
      calibration: calibrated,
      workers,
      window,
      maxWindows,
      tasks: await readTaskMeasure(context, source, options),
      weights,
      store,
      dtype,
      device,
      threads,
      keep,
      force,
      speedRepeats: speed === true ? repeats : undefined,
      onCandidate: context.note,
      signal,
      onProgress,
    });
    context.print(`${formatResultRows(document.entries.map(({ row }) => row))}\n`);
    return document;
  },
};
