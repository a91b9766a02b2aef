import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Recipe } from "../compress/index.js";
import { evaluateQuality, formatResultRows, type ResultRow, resultRow } from "../eval/index.js";
import { type Artifact, artifactFileName, type LocalModelFiles, serializeArtifact } from "../io/index.js";
import { directoryFiles, resolveModel, writeFileAtomic } from "../io/index.node.js";
import { type JobTimes, openModel } from "../pipeline/index.js";
import { type CompressedDirectory, compressToDirectory } from "../pipeline/index.node.js";
import { loadTokenizer, type TokenizedText, tokenizeText } from "../text/index.js";
import type { Context } from "./command.js";
import { type CompressionOptions, withCalibration } from "./compressionOptions.js";
import { bytes, duration, percent } from "./format.js";
import { peakResidentBytes } from "./machine.js";
import { readText } from "./session.js";
import { packageVersion } from "./version.js";

/** What --json prints: the row of the result, and how it came about. */
export interface CompressionDocument extends ResultRow {
  output: string;
  /** What ran the calibration windows, in words; undefined where nothing was measured. */
  calibratedBy?: string;
  /** Of the source, measured in the same run. */
  before?: ResultRow;
  /** Blocks that an earlier run had finished. */
  resumedBlocks: number;
  timesMs: JobTimes;
  estimate: CompressedDirectory["plan"]["estimate"];
  layers: NonNullable<Artifact["compression"]>["layers"];
}

/** Runs one job from the command line: plan, compress, evaluate before and after. Prints as it goes. */
export async function compressFromCommand(
  context: Context,
  model: string,
  givenRecipe: Recipe,
  output: string,
  options: CompressionOptions & { restart?: boolean },
): Promise<CompressionDocument> {
  const startMs = performance.now();
  const { signal, onProgress } = context;
  const source = await resolveModel(model, { signal, onProgress });
  const recipe = withCalibration(givenRecipe, options);
  const { store, dtype, device, threads, restart } = options;
  const calibration = options.calib === undefined ? undefined : await tokens(source, options.calib);
  const result = await compressToDirectory(source, output, {
    recipe,
    calibration,
    store,
    dtype,
    device,
    threads,
    restart,
    version: packageVersion(),
    signal,
    onProgress,
    onPlan: ({ estimate, layers, backend }) =>
      context.print(
        `${layers} blocks${backend === undefined ? "" : `, calibrated by ${backend.description}`}: about ${duration(estimate.elapsedMs)}, ${bytes(estimate.memoryBytes)} of memory, ` +
          `at most ${bytes(estimate.diskBytes)} on disk.\n`,
      ),
  });
  if (result.wasThere) context.print(`${output} is there already, made by the same command.\n`);
  const elapsedMs = performance.now() - startMs;
  const rows = options.text === undefined ? [] : await evaluate(context, source, output, options.text, recipe, options);
  const { compression } = result.artifact;
  const stored = {
    densityStored: densityStored(result.artifact),
    bytesOnDisk: await weightBytesOf(directoryFiles(output)),
  };
  const [before, after = { model: basename(output), weights: "f32" as const, activationSparsity: 0 }] = rows;
  if (before !== undefined) {
    before.bytesOnDisk = await weightBytesOf(source);
    await addResults(output, result.artifact, [before, { ...after, ...stored }]);
  }
  const row: ResultRow = {
    ...after,
    ...stored,
    elapsedMs: Math.round(elapsedMs),
    peakMemoryBytes: peakResidentBytes(),
  };
  context.print(`${formatResultRows(before === undefined ? [row] : [before, row])}\n\n${summary(output, result, row)}`);
  return {
    ...row,
    output,
    calibratedBy: result.plan.backend?.description,
    ...(before && { before }),
    resumedBlocks: result.resumedBlocks,
    timesMs: result.elapsedMs,
    estimate: result.plan.estimate,
    layers: compression!.layers,
  };
}

async function tokens(source: LocalModelFiles, path: string): Promise<TokenizedText> {
  const text = await readText(path);
  return tokenizeText(await loadTokenizer(source), text);
}

/** Rows of the source and of the result on the same windows, both in f32 as other tools compute them. */
async function evaluate(
  context: Context,
  source: LocalModelFiles,
  output: string,
  path: string,
  recipe: Recipe,
  { device, threads, maxWindows }: CompressionOptions,
): Promise<ResultRow[]> {
  const text = await tokens(source, path);
  const { signal, onProgress } = context;
  const machine = { weights: "f32" as const, device, threads, signal, onProgress };
  using before = await openModel(source, machine);
  using after = await openModel(directoryFiles(output), machine);
  const variants = [
    { name: basename(source.location), model: before.model },
    { name: basename(output), model: after.model },
  ];
  const backend = after.model.backend.info.id;
  const { window } = recipe.calibration;
  const qualities = await evaluateQuality(variants, text, { window, maxWindows, signal, onProgress });
  return qualities.map((quality) => resultRow({ model: quality.name, weights: "f32", quality, backend }));
}

/** Measured rows go into rarefy.json, times and memory left out: the same command gives the same ones. */
async function addResults(output: string, artifact: Artifact, rows: readonly ResultRow[]): Promise<void> {
  const results = rows.map((row) => ({ ...row }));
  await writeFileAtomic(join(output, artifactFileName), serializeArtifact({ ...artifact, results }));
}

/** See `ResultRow`. */
export function densityStored({ compression }: Artifact): number {
  const { layers, sourceWeights } = compression!;
  const stored = layers.flatMap(({ matrices }) => Object.values(matrices).map(({ nonZeros }) => nonZeros));
  return stored.reduce((sum, count) => sum + count, 0) / sourceWeights;
}

/** Bytes of the files that hold weights. */
export async function weightBytesOf(files: LocalModelFiles): Promise<number> {
  let total = 0;
  for (const name of await files.names()) {
    const path = files.pathOf(name);
    if (path !== undefined && /\.(safetensors|gguf)$/.test(name)) total += (await stat(path)).size;
  }
  return total;
}

/** Experts that saw fewer calibration tokens than their matrices have inputs, too few to know how these go together. */
function rarelyChosen({ compression }: Artifact): string[] {
  const experts = new Map<string, number>();
  for (const { source, matrices } of compression!.layers) {
    for (const [key, { tokens, cols }] of Object.entries(matrices)) {
      if (tokens !== undefined && tokens < cols) experts.set(`${source}.${key.split(".")[1]}`, tokens);
    }
  }
  if (experts.size === 0) return [];
  const rarest = [...experts].sort(([, a], [, b]) => a - b).slice(0, 4);
  const listed = rarest.map(([expert, tokens]) => `${expert} (${tokens})`).join(", ");
  return [
    `Experts that saw fewer calibration tokens than they have inputs: ${experts.size}, as layer.expert (tokens) ${listed}${experts.size > 4 ? " …" : ""}. More windows would serve them better.`,
  ];
}

function summary(
  output: string,
  { elapsedMs, resumedBlocks, plan, artifact }: CompressedDirectory,
  row: ResultRow,
): string {
  const parts = Object.entries(elapsedMs)
    .filter(([, ms]) => ms >= 50)
    .map(([part, ms]) => `${part} ${(ms / 1000).toFixed(1)} s`);
  const resumed = resumedBlocks > 0 ? `, ${resumedBlocks} of ${plan.layers} blocks taken over from an earlier run` : "";
  return [
    `${(row.elapsedMs! / 1000).toFixed(1)} s (${parts.join(", ")})${resumed}; peak ${bytes(row.peakMemoryBytes!)}.`,
    `${percent(row.densityStored!, 1)} of the numbers, ${bytes(row.bytesOnDisk!)} in ${output}`,
    ...rarelyChosen(artifact),
    "",
  ].join("\n");
}
