import type { JobOptions } from "../core/index.js";
import {
  artifactFileName,
  artifactVersion,
  type ExitClassifiers,
  type LocalModelFiles,
  serializeArtifact,
} from "../io/index.js";
import { isModelFile } from "../io/internal.js";
import { type ExitTrainingOptions, type OpenModelOptions, openModel, trainExits } from "../pipeline/index.js";
import { parseExits } from "../runtime/index.js";
import type { TokenizedText } from "../text/index.js";
import { writeBesideWeights } from "./besideWeights.js";
import { configHash } from "./source.js";

/** How to open the model, how its exits are trained, and what it is to run with. */
export interface TrainExitsToDirectoryOptions
  extends Omit<OpenModelOptions, keyof JobOptions | "expertRanks">,
    ExitTrainingOptions {
  /** The rule that the result runs with, as `parseExits` reads it; default `svm`. */
  rule?: string;
  /** Replace the finished result of something else. */
  force?: boolean;
  /** Text to train on; asked for once everything that is cheap to check is right. */
  text(): Promise<TokenizedText>;
}

/** What training exits came to; also in the result's rarefy.json. */
export interface ExitsDirectory {
  output: string;
  model: string;
  weights: string;
  /** The rule that the result runs with. */
  rule: string;
  exits: ExitClassifiers;
}

/**
 * Trains early exit for a model, and writes a model directory that has it: the same weights, linked or copied, and a rarefy.json
 * with what the model's own says, the classifiers and the rule. It appears whole or not at all.
 * @throws UsageError, BusyError, StorageError before the weights are read; what `openModel` and `trainExits` throw
 */
export async function trainExitsToDirectory(
  source: LocalModelFiles,
  output: string,
  options: TrainExitsToDirectoryOptions,
): Promise<ExitsDirectory> {
  const { force, rule = "svm", text: textOf, signal, onProgress } = options;
  // What is wrong with the rule is said before anything is read.
  const { text: written } = parseExits(rule);
  const job = { command: "exits", force, text: textOf, settings: settingsOf(options), signal, onProgress };
  return writeBesideWeights(source, output, job, async (builder, text) => {
    const { weights: asked, structure, device, threads } = options;
    using opened = await openModel(source, { weights: asked, structure, device, threads, signal, onProgress });
    const { model, artifact } = opened;
    const { weights } = model;
    const exits = await trainExits(model, text, options);
    // Whether the rule fits what was trained.
    parseExits(written, exits).open(model.config.layers);
    const record = serializeArtifact({
      ...artifact,
      rarefy: artifactVersion,
      weights,
      inference: { ...artifact?.inference, exits: written },
      exits,
      source: { location: source.location, configSha256: await configHash(source) },
    });
    await builder.takeOver(source, (name) => isModelFile(name) && name !== artifactFileName);
    await builder.add(artifactFileName, record);
    return { output, model: source.location, weights, rule: written, exits };
  });
}

/** All that decides the result beside model and text. */
function settingsOf(options: TrainExitsToDirectoryOptions): object {
  const { rule, window, calibrationWindows, from, every, weights, device } = options;
  return { exits: [rule, window, calibrationWindows, from, every], how: [weights, device] };
}
