import { readFile, stat } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { Option } from "commander";
import type { ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import {
  type Artifact,
  artifactFileName,
  compressionOf,
  openCheckpoint,
  parseJson,
  readArtifact,
} from "../../io/index.js";
import { directoryFiles, writeFilesAtomic } from "../../io/index.node.js";
import { isPlainFileName } from "../../io/internal.js";
import { weightBytesOf } from "../../jobs/index.js";
import { describeDecoder } from "../../model/index.js";
import type { ReportData, Run } from "../../report/index.js";
import type { CommandDefinition, CommonOptions } from "../command.js";
import { bytes, printable } from "../format.js";

interface ReportOptions extends CommonOptions {
  output: string;
}

export const command: CommandDefinition<ReportOptions> = {
  description:
    "Reads what sweep, prune, quantize, compress, calibrate, train and finetune wrote and makes one self-contained page: before and after, perplexity " +
    "against size and speed, zeros and reconstruction error of every layer, masks, activations with their thresholds, curves " +
    "of training, recipes and environment. It has no scripts and fetches nothing, reads well on a phone and prints. Beside it lies the same data as " +
    "JSON. Masks are drawn of models that are there: sweep keeps them with --keep.",
  arguments: [["OUT...", "directories that those commands wrote"]],
  options: [new Option("-o, --output <file>", "page to write").default("report.html")],
  examples: ["rarefy report tiny-sweep -o tiny-sweep.html", "rarefy report tiny-sparse tiny-wanda -o both.html"],
  async run(context, { output }, directories) {
    if (!output.endsWith(".html")) throw new UsageError(`${output}: the name of the page ends in .html`);
    // Only this command draws.
    const report = await import("../../report/index.js");
    const runs: Run[] = [];
    for (const directory of directories) {
      context.signal.throwIfAborted();
      runs.push(await readRun(directory, report));
    }
    const data: ReportData = { rarefyReport: 1, runs: report.joinRuns(runs) };
    const page = new TextEncoder().encode(await report.reportPage(data));
    const jsonPath = output.replace(/\.html$/, ".json");
    await writeFilesAtomic([
      [resolve(output), page],
      [resolve(jsonPath), new TextEncoder().encode(report.reportJson(data))],
    ]);
    const candidates = data.runs.reduce((sum, run) => sum + run.candidates.length, 0);
    context.print(
      `Wrote ${printable(output)} (${bytes(page.byteLength)}) and ${printable(basename(jsonPath))} in ${printable(dirname(resolve(output)))}: ${candidates} models.\n`,
    );
    return { output, json: jsonPath, bytesOnDisk: page.byteLength, runs: data.runs.length, models: candidates };
  },
};

/** Results hold no date, so that the same job gives the same bytes; the file system has one. */
const lastWritten = async (path: string) => (await stat(path)).mtime.toISOString();

type Report = typeof import("../../report/index.js");

/** @throws UsageError for a directory that none of the commands wrote */
async function readRun(directory: string, report: Report): Promise<Run> {
  const path = join(directory, "sweep.json");
  const sweep = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
  if (sweep !== undefined) {
    const run = { ...report.runOfSweep(parseJson(sweep, path), directory, path), made: await lastWritten(path) };
    return withMasks(run, directory, report);
  }
  const files = directoryFiles(directory);
  const artifact = await readArtifact({ files, location: directory });
  if (artifact === undefined) {
    throw new UsageError(`${directory} has neither sweep.json nor rarefy.json; give what a command of rarefy wrote`);
  }
  const spec = artifact.activations && (await specOf(directory));
  const name = basename(resolve(directory));
  const made = await lastWritten(join(directory, artifactFileName));
  const run: Run = { ...report.runOfArtifact(artifact, directory, name, await weightBytesOf(files), spec), made };
  run.candidates[0].masks = isSparse(artifact) ? await masksOf(directory, report) : undefined;
  const log = join(directory, "training.jsonl");
  const lines = await readFile(log, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined;
    throw error;
  });
  run.candidates[0].training = lines === undefined ? undefined : report.readTrainingLog(lines, log);
  return run;
}

const isSparse = (artifact: Artifact) =>
  compressionOf(artifact)?.layers.some(({ matrices }) =>
    Object.values(matrices).some(({ sparsity }) => sparsity > 0),
  ) === true;

/** Adds pictures of the candidates that a sweep has kept. */
async function withMasks(run: Run, directory: string, report: Report): Promise<Run> {
  for (const candidate of run.candidates) {
    if (!isPlainFileName(candidate.name)) continue;
    const kept = join(directory, candidate.name);
    const there = await stat(join(kept, "config.json")).catch(() => undefined);
    if (there?.isFile()) candidate.masks = await masksOf(kept, report);
  }
  return run;
}

async function specOf(directory: string): Promise<ModelSpec> {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  try {
    return (await describeDecoder(checkpoint)).config.spec;
  } finally {
    await checkpoint.close();
  }
}

async function masksOf(directory: string, { drawMask, masksToDraw }: Report) {
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  try {
    const { config } = await describeDecoder(checkpoint);
    const masks = [];
    for (const name of masksToDraw(checkpoint, config.spec)) masks.push(await drawMask(checkpoint, name));
    return masks;
  } finally {
    await checkpoint.close();
  }
}
