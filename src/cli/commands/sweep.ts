import { readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { Option } from "commander";
import { ProblemsError, RarefyError } from "../../core/index.js";
import { evaluateQuality, formatResultRows, measureSpeedInTurn, type ResultRow, resultRow } from "../../eval/index.js";
import {
  type Compression,
  isJsonObject,
  type LocalModelFiles,
  openCheckpoint,
  parseJson,
  readArtifact,
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

/** What its file holds. */
interface StoredEntry extends SweepEntry {
  /** Its speed beside the others, and a key over all that were timed together. */
  timing?: { key: string; row: ResultRow };
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
    const stored: StoredEntry[] = [];
    let entries: SweepEntry[];
    try {
      for (const candidate of [undefined, ...candidates]) stored.push(await measured(sweep, candidate));
      entries = options.speed === true ? await timed(sweep, candidates, stored) : stored;
    } catch (cause) {
      if (!context.signal.aborted) throw cause;
      const done = `${options.output} holds ${Math.max(0, stored.length - 1)} of ${candidates.length} candidates`;
      throw new RarefyError(`${done}; the same command goes on from there.`, { cause });
    }
    const document: SweepDocument = {
      rarefySweep: 1,
      model: source.location,
      output: options.output,
      machine: machine(),
      entries: entries.map(({ timing: _, ...entry }: StoredEntry) => entry),
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
async function measured(sweep: Sweep, candidate: Candidate | undefined): Promise<StoredEntry> {
  const path = fileOf(sweep, candidate?.name);
  const key = await keyOf(sweep, candidate);
  const found = await readEntry(path, key);
  if (found !== undefined) return found;
  sweep.context.note(candidate?.name ?? "source");
  const entry = candidate === undefined ? await sourceEntry(sweep, key) : await candidateEntry(sweep, candidate, key);
  await writeJson(path, entry);
  return entry;
}

const fileOf = ({ options }: Sweep, name = "source") => join(options.output, `${name}.json`);

/**
 * The entries with the speed of each: all are timed together, in turn and one open at a time, since a machine is not the same
 * from one hour to the next. Candidates whose models are gone are made again.
 */
async function timed(
  sweep: Sweep,
  candidates: readonly Candidate[],
  entries: readonly StoredEntry[],
): Promise<SweepEntry[]> {
  const { context, options, source, texts } = sweep;
  const { device, threads, weights, repeats, keep } = options;
  const { signal, onProgress } = context;
  const key = await sha256Hex(JSON.stringify([entries.map((entry) => entry.key), repeats, threads]));
  let timings = entries.map(({ timing }) => (timing?.key === key ? timing : undefined));
  if (timings.includes(undefined)) {
    context.note("speed");
    const models = [source];
    for (const candidate of candidates) models.push(await compressed(sweep, candidate));
    const variants = models.map((files, i) => ({
      name: entries[i].name,
      async open() {
        const opened = await openModel(files, { weights, device, threads, signal });
        return { name: entries[i].name, model: opened.model, [Symbol.dispose]: () => opened[Symbol.dispose]() };
      },
    }));
    const speeds = await measureSpeedInTurn(variants, texts.evaluation.tokens, {
      repeats,
      decodeTokens: 64,
      signal,
      onProgress,
    });
    timings = speeds.map((speed, i) => ({
      key,
      row: resultRow({ model: entries[i].name, weights: entries[i].row.weights, speed }),
    }));
    for (const [i, timing] of timings.entries()) {
      await writeJson(fileOf(sweep, candidates[i - 1]?.name), { ...entries[i], timing });
    }
  }
  if (keep !== true) for (const { name } of candidates) await removed(sweep, name);
  return entries.map((entry, i) => ({ ...entry, row: { ...timings[i]!.row, ...entry.row } }));
}

const removed = ({ options }: Sweep, name: string) => rm(join(options.output, name), { recursive: true, force: true });

async function keyOf({ source, identity, options, texts }: Sweep, candidate: Candidate | undefined): Promise<string> {
  const { window, maxWindows, weights, store, dtype, device } = options;
  const what = {
    version: packageVersion(),
    model: [source.location, identity],
    recipe: candidate?.recipe ?? null,
    text: texts.evaluation.sha256,
    calibration: texts.calibration?.sha256 ?? null,
    how: [window, maxWindows, weights, store, dtype, device],
  };
  return sha256Hex(JSON.stringify(what));
}

async function readEntry(path: string, key: string): Promise<StoredEntry | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = await readFile(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
  const raw = parseJson(bytes, path);
  return isJsonObject(raw) && raw.key === key ? (raw as unknown as StoredEntry) : undefined;
}

async function sourceEntry(sweep: Sweep, key: string): Promise<SweepEntry> {
  const { source } = sweep;
  const row = await measure(sweep, source, basename(source.location));
  return { key, name: row.model, row: { ...row, bytesOnDisk: await weightBytesOf(source) } };
}

async function candidateEntry(sweep: Sweep, candidate: Candidate, key: string): Promise<SweepEntry> {
  const { name } = candidate;
  const { keep, speed } = sweep.options;
  const startMs = performance.now();
  const files = await compressed(sweep, candidate);
  const elapsedMs = Math.round(performance.now() - startMs);
  const artifact = (await readArtifact({ files, location: files.location }))!;
  const row: ResultRow = {
    ...(await measure(sweep, files, name)),
    densityStored: densityStored(artifact),
    bytesOnDisk: await weightBytesOf(files),
    elapsedMs,
  };
  if (keep !== true && speed !== true) await removed(sweep, name);
  return { key, name, row, recipe: artifact.recipe, layers: artifact.compression!.layers };
}

/** The model of a candidate, made unless it is there. */
async function compressed(
  { context, source, options, texts }: Sweep,
  { name, recipe }: Candidate,
): Promise<LocalModelFiles> {
  const { store, dtype, device, threads } = options;
  const directory = join(options.output, name);
  await compressToDirectory(source, directory, {
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
  return directoryFiles(directory);
}

async function measure({ context, options, texts }: Sweep, files: LocalModelFiles, name: string): Promise<ResultRow> {
  const { device, threads, weights, maxWindows, window = 512 } = options;
  const { signal, onProgress } = context;
  using opened = await openModel(files, { weights, device, threads, signal, onProgress });
  const { model } = opened;
  const [quality] = await evaluateQuality([{ name, model }], texts.evaluation, {
    window,
    maxWindows,
    signal,
    onProgress,
  });
  return resultRow({ model: name, weights: model.weights, quality, backend: model.backend.info.id });
}

function writeJson(path: string, value: unknown): Promise<void> {
  return writeFileAtomic(path, new TextEncoder().encode(`${JSON.stringify(value, undefined, 2)}\n`));
}
