import { readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { Option } from "commander";
import { ProblemsError, RarefyError } from "../../core/index.js";
import { evaluateQuality, formatResultRows, measureSpeed, type ResultRow, resultRow } from "../../eval/index.js";
import {
  type Compression,
  isJsonObject,
  type LocalModelFiles,
  openCheckpoint,
  parseJson,
  sha256Hex,
} from "../../io/index.js";
import { directoryFiles, makeDirectory, resolveModel, writeFileAtomic } from "../../io/index.node.js";
import { checkCompression, type Fingerprint, fingerprint, openModel } from "../../pipeline/index.js";
import { compressToDirectory } from "../../pipeline/index.node.js";
import { loadTokenizer, type TokenizedText, tokenizeText } from "../../text/index.js";
import type { CommandDefinition, Context } from "../command.js";
import { densityStored, weightBytesOf } from "../compression.js";
import {
  type CompressionOptions,
  compressionOptions,
  outputOption,
  readRecipe,
  withCalibration,
} from "../compressionOptions.js";
import { type Machine, machine } from "../machine.js";
import { modelArgument, repeatsOption, type WeightsOption, weightsOption } from "../options.js";
import { readText } from "../session.js";
import { type Candidate, candidatesOf, type Level, parseLevels } from "../sweepCandidates.js";
import { packageVersion } from "../version.js";

interface SweepOptions extends CompressionOptions, WeightsOption {
  recipe: string[];
  sparsity?: Level[];
  keep?: boolean;
  speed?: boolean;
  repeats: number;
  output: string;
}

/** One line of the table, with what it stands for: a file of its own in the output directory. */
export interface SweepEntry {
  /** Over all that decides the row. */
  key: string;
  name: string;
  row: ResultRow;
  /** undefined for the source. */
  recipe?: unknown;
  layers?: Compression["layers"];
}

export interface SweepDocument {
  rarefySweep: 1;
  model: string;
  output: string;
  machine: Machine;
  entries: SweepEntry[];
}

export const sweepCommand: CommandDefinition<SweepOptions> = {
  name: "sweep",
  summary: "many candidates of compression, measured alike, in one table",
  description:
    "Runs every recipe at every sparsity, evaluates each result and the source on one text, and prints one table. OUT gets a " +
    "sweep.json with all rows, recipes and layers, for rarefy report. What is finished is not done again: killed or stopped, " +
    "the same command goes on in the middle of a candidate.",
  arguments: [modelArgument],
  options: [
    outputOption(),
    new Option("--recipe <file|preset...>", "recipes to go through").makeOptionMandatory(),
    new Option(
      "--sparsity <levels>",
      "what to put into their prune and low-rank stages: 0.3..0.8, 0.3..0.8/0.05 or 0.5,0.7,2:4",
    ).argParser(parseLevels),
    new Option("--keep", "keep the models, each in a directory of its own"),
    new Option("--speed", "measure prefill and decode speed too"),
    repeatsOption(),
    weightsOption(),
    ...compressionOptions(),
  ],
  examples: [
    "rarefy sweep models/tiny-6m --recipe magnitude-50 wanda-50 sparsegpt-50 --sparsity 0.3..0.7/0.2 --calib models/text/calib.txt --text models/text/books-eval.txt -o tiny-sweep",
  ],
  async run(context, options, [model]) {
    const source = await resolveModel(model, context);
    const recipes = await Promise.all(
      options.recipe.map(async (name) => ({ name, recipe: withCalibration(await readRecipe(name), options) })),
    );
    const candidates = candidatesOf(recipes, options.sparsity);
    if (options.text === undefined) throw new RarefyError("a sweep needs a text to measure on: give --text");
    const texts = {
      evaluation: await tokens(source, options.text),
      calibration: await maybeTokens(source, options.calib),
    };
    const identity = await checked(source, candidates, texts.calibration);
    await makeDirectory(options.output);

    const sweep = { context, source, identity, options, texts };
    const entries = [await measured(sweep, undefined)];
    for (const candidate of candidates) {
      try {
        entries.push(await measured(sweep, candidate));
      } catch (cause) {
        if (!context.signal.aborted) throw cause;
        const done = `${options.output} holds ${entries.length - 1} of ${candidates.length} candidates`;
        throw new RarefyError(`${done}; the same command goes on from there.`, { cause });
      }
    }
    const document: SweepDocument = {
      rarefySweep: 1,
      model: source.location,
      output: options.output,
      machine: machine(),
      entries,
    };
    await writeJson(join(options.output, "sweep.json"), document);
    context.print(`${formatResultRows(entries.map(({ row }) => row))}\n`);
    return document;
  },
};

interface Sweep {
  context: Context;
  source: LocalModelFiles;
  identity: Fingerprint;
  options: SweepOptions;
  texts: { evaluation: TokenizedText; calibration: TokenizedText | undefined };
}

/**
 * Looks at the source before hours are spent on it.
 * @throws ProblemsError with what stands in the way of any candidate
 */
async function checked(
  source: LocalModelFiles,
  candidates: readonly Candidate[],
  calibration: TokenizedText | undefined,
): Promise<Fingerprint> {
  const checkpoint = await openCheckpoint(source);
  try {
    const problems: string[] = [];
    for (const { name, recipe } of candidates) {
      await checkCompression(checkpoint, { recipe, calibration }).catch((error) => {
        if (!(error instanceof ProblemsError)) throw error;
        problems.push(...error.problems.map((problem) => `${name}: ${problem}`));
      });
    }
    if (problems.length > 0) throw new ProblemsError("this sweep cannot be done", problems);
    return await fingerprint(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

async function tokens(source: LocalModelFiles, path: string): Promise<TokenizedText> {
  return tokenizeText(await loadTokenizer(source), await readText(path));
}

const maybeTokens = async (source: LocalModelFiles, path: string | undefined) =>
  path === undefined ? undefined : tokens(source, path);

/** The entry of a candidate, or of the source: taken from its file when that was made by the same command. */
async function measured(sweep: Sweep, candidate: Candidate | undefined): Promise<SweepEntry> {
  const { context, options } = sweep;
  const name = candidate?.name ?? "source";
  const path = join(options.output, `${name}.json`);
  const key = await keyOf(sweep, candidate);
  const found = await readEntry(path, key);
  if (found !== undefined) return found;
  context.note(name);
  const entry = candidate === undefined ? await sourceEntry(sweep, key) : await candidateEntry(sweep, candidate, key);
  await writeJson(path, entry);
  return entry;
}

async function keyOf({ source, identity, options, texts }: Sweep, candidate: Candidate | undefined): Promise<string> {
  const { window, maxWindows, weights, store, dtype, device, speed, repeats, threads } = options;
  const what = {
    version: packageVersion(),
    model: [source.location, identity],
    recipe: candidate?.recipe ?? null,
    text: texts.evaluation.sha256,
    calibration: texts.calibration?.sha256 ?? null,
    how: [window, maxWindows, weights, store, dtype, device],
    speed: speed === true ? [repeats, threads] : null,
  };
  return sha256Hex(JSON.stringify(what));
}

async function readEntry(path: string, key: string): Promise<SweepEntry | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const raw = parseJson(bytes, path);
  return isJsonObject(raw) && raw.key === key ? (raw as unknown as SweepEntry) : undefined;
}

async function sourceEntry(sweep: Sweep, key: string): Promise<SweepEntry> {
  const { source } = sweep;
  const row = await measure(sweep, source, basename(source.location));
  return { key, name: row.model, row: { ...row, bytesOnDisk: await weightBytesOf(source) } };
}

async function candidateEntry(sweep: Sweep, { name, recipe }: Candidate, key: string): Promise<SweepEntry> {
  const { context, source, options, texts } = sweep;
  const { store, dtype, device, threads } = options;
  const directory = join(options.output, name);
  const startMs = performance.now();
  const { artifact } = await compressToDirectory(source, directory, {
    recipe,
    calibration: texts.calibration,
    store,
    dtype,
    device,
    threads,
    replaceOtherJob: true,
    version: packageVersion(),
    signal: context.signal,
    onProgress: context.onProgress,
  });
  const elapsedMs = Math.round(performance.now() - startMs);
  const row: ResultRow = {
    ...(await measure(sweep, directoryFiles(directory), name)),
    densityStored: densityStored(artifact),
    bytesOnDisk: await weightBytesOf(directoryFiles(directory)),
    elapsedMs,
  };
  if (options.keep !== true) await rm(directory, { recursive: true, force: true });
  return { key, name, row, recipe: artifact.recipe, layers: artifact.compression!.layers };
}

async function measure({ context, options, texts }: Sweep, files: LocalModelFiles, name: string): Promise<ResultRow> {
  const { device, threads, weights, maxWindows, window = 512, speed, repeats } = options;
  const { signal, onProgress } = context;
  using opened = await openModel(files, { weights, device, threads, signal, onProgress });
  const { model } = opened;
  const variants = [{ name, model }];
  const [quality] = await evaluateQuality(variants, texts.evaluation, { window, maxWindows, signal, onProgress });
  const timed =
    speed === true
      ? await measureSpeed(variants, texts.evaluation.tokens, { repeats, decodeTokens: 64, signal, onProgress })
      : [];
  return resultRow({ model: name, weights: model.weights, quality, speed: timed[0], backend: model.backend.info.id });
}

function writeJson(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`));
}
