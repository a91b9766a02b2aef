import { basename, join } from "node:path";
import { densityStored, evaluateQuality, type ResultRow, resultRow } from "../eval/index.js";
import { type Artifact, artifactFileName, type LocalModelFiles, serializeArtifact } from "../io/index.js";
import { directoryFiles, writeFileAtomic } from "../io/index.node.js";
import { openModel } from "../pipeline/index.js";
import { measureTasks, type TaskMeasure } from "../tasks/index.js";
import type { TokenizedText } from "../text/index.js";
import { type CompressDirectoryOptions, type CompressedDirectory, compressToDirectory } from "./compressToDirectory.js";
import { peakResidentBytes } from "./machine.js";
import { weightBytesOf } from "./measures.js";

/** What to do, and what to measure it on. */
export interface CompressAndMeasureOptions extends CompressDirectoryOptions {
  /** Text to measure source and result on; default: nothing is measured. */
  evaluation?: TokenizedText;
  /** Windows of `evaluation` that are measured, of the recipe's length. */
  maxWindows: number;
  /** Tasks to measure source and result by; default: none. */
  tasks?: TaskMeasure;
}

/** A compressed model with its row, and that of its source. */
export interface MeasuredCompression extends CompressedDirectory {
  /** Of the source, measured in the same run; undefined with neither text nor tasks. */
  before?: ResultRow;
  /** Of the result, with its size, time and memory. */
  after: ResultRow;
}

/**
 * `compressToDirectory`, then source and result on the same windows, both in f32 as other tools compute them. The rows go
 * into the result's rarefy.json, without times and memory: the same call gives the same bytes.
 * @throws what `compressToDirectory` does
 */
export async function compressAndMeasure(
  source: LocalModelFiles,
  output: string,
  options: CompressAndMeasureOptions,
): Promise<MeasuredCompression> {
  const startMs = performance.now();
  const result = await compressToDirectory(source, output, options);
  const elapsedMs = Math.round(performance.now() - startMs);
  const [before, measured] = await measure(source, output, options);
  const after: ResultRow = {
    ...(measured ?? { model: basename(output), weights: "f32", activationSparsity: 0 }),
    densityStored: densityStored(result.artifact),
    bytesOnDisk: await weightBytesOf(directoryFiles(output)),
  };
  if (before !== undefined) {
    before.bytesOnDisk = await weightBytesOf(source);
    await addResults(output, result.artifact, [before, after]);
  }
  return {
    ...result,
    ...(before && { before }),
    after: { ...after, elapsedMs, peakMemoryBytes: peakResidentBytes() },
  };
}

async function measure(
  source: LocalModelFiles,
  output: string,
  { evaluation, tasks, recipe, device, threads, maxWindows, signal, onProgress }: CompressAndMeasureOptions,
): Promise<ResultRow[]> {
  if (evaluation === undefined && tasks === undefined) return [];
  const machine = { weights: "f32" as const, device, threads, signal, onProgress };
  using before = await openModel(source, machine);
  using after = await openModel(directoryFiles(output), machine);
  const variants = [
    { name: basename(source.location), model: before.model },
    { name: basename(output), model: after.model },
  ];
  const backend = after.model.backend.info.id;
  const { window } = recipe.calibration;
  const qualities =
    evaluation && (await evaluateQuality(variants, evaluation, { window, maxWindows, signal, onProgress }));
  const rows: ResultRow[] = [];
  for (const [v, variant] of variants.entries()) {
    const figures = tasks && (await measureTasks(variant, tasks, { signal, onProgress }));
    rows.push(resultRow({ model: variant.name, weights: "f32", quality: qualities?.[v], tasks: figures, backend }));
  }
  return rows;
}

async function addResults(output: string, artifact: Artifact, rows: readonly ResultRow[]): Promise<void> {
  const results = rows.map((row) => ({ ...row }));
  await writeFileAtomic(join(output, artifactFileName), serializeArtifact({ ...artifact, results }));
}
