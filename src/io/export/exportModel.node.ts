import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { families, type ModelConfig, type ModelSpec, parseModelConfig, tensorsOfBlock } from "../../arch/index.js";
import { FormatError, type JobOptions, UsageError } from "../../core/index.js";
import { artifactFileName, serializeArtifact } from "../artifact.js";
import { type Artifact, artifactVersion } from "../artifactSchema.js";
import { newFile } from "../atomic.node.js";
import type { LocalModelFiles } from "../byteSource.js";
import { readChatTemplates } from "../chatTemplates.js";
import { type Checkpoint, openCheckpoint } from "../checkpoint.js";
import { compressedTensors, withQuantizationConfig } from "../compressedTensors/write.js";
import type { FloatDType } from "../encoding/index.js";
import { directoryFiles, openFile } from "../file.node.js";
import { fingerprint } from "../fingerprint.js";
import { readGgufHeader } from "../gguf/header.js";
import { type GgufTypeId, ggufFileName, ggufTypeIds, writeGguf } from "../gguf/index.js";
import { localGgufFiles } from "../gguf/local.node.js";
import { jobKey, normShift, typeOf, weightsForGguf } from "../gguf/writeGguf.js";
import { isJsonObject, jsonBytes } from "../json.js";
import { modelDirectoryBuilder } from "../modelDirectory.node.js";
import { isCompanionFile } from "../modelFileNames.js";
import { claimOutput } from "../output/claim.node.js";
import { lockPath } from "../output/lock.node.js";
import { type TensorToWrite, writeSafetensors } from "../safetensorsWriter.js";
import { sha256Hex } from "../sha256.js";
import { plainWeights, type Weights, withOwnBlocks } from "../weights.js";
import { plainTensor } from "./plainSafetensors.js";
import { type Fidelity, type Verification, verifyExport } from "./verify.js";

/** Formats that other tools read. */
export type ExportFormat = "gguf" | "safetensors" | "compressed-tensors";
/** Type of the stored weights; `exportTypes` says which format holds which. */
export type ExportType = GgufTypeId;

/** The types each format can hold. */
export const exportTypes: Readonly<Record<ExportFormat, readonly ExportType[]>> = {
  gguf: ggufTypeIds,
  safetensors: ["f32", "f16", "bf16"],
  "compressed-tensors": ["f32", "f16", "bf16"],
};

/** Format and type of an export. */
export interface ExportOptions extends JobOptions {
  format: ExportFormat;
  /** Default: f16 in GGUF, as stored in the others. */
  type?: ExportType;
  /** Replace a finished result of something else. */
  force?: boolean;
  /** Sees the export before it gets its name: what it throws undoes it. */
  check?(exported: LocalModelFiles): Promise<void>;
}

/** What was written, and that it was read back and compared. */
export interface ExportResult {
  format: ExportFormat;
  type: ExportType | "as stored";
  /** The file, or all files of the directory. */
  bytesOnDisk: number;
  verification: Verification;
  /** compressed-tensors: the format it came to, and the share of zeros of the compressed matrices. */
  sparseFormat?: string;
  sparsity?: number;
}

/**
 * Writes a model for other tools, reads it back and compares every value before the output gets its name: whole and right, or
 * not at all.
 * @param output a file for GGUF, a directory for the others
 * @throws UsageError when the format cannot hold the model, or something else is there; FormatError when it reads back otherwise;
 * BusyError, StorageError
 */
export async function exportModel(
  files: LocalModelFiles,
  output: string,
  options: ExportOptions,
): Promise<ExportResult> {
  const { format, type } = options;
  if (type !== undefined && !exportTypes[format].includes(type)) {
    throw new UsageError(`${format} is not written in ${type}; it can be ${exportTypes[format].join(", ")}`);
  }
  const checkpoint = await openCheckpoint(files);
  try {
    const generation = await checkpoint.readJson("generation_config.json");
    const shapes = checkpoint.artifact?.blocks;
    const blocks = shapes && withOwnBlocks(shapes);
    const file = `${files.location}/config.json`;
    const config = parseModelConfig(checkpoint.config, file, generation, blocks);
    if (blocks?.some(({ contextRank }) => contextRank !== undefined)) {
      throw new UsageError(`${files.location} prunes its context as it was trained to, which no other tool does`);
    }
    if (blocks?.some(({ gates }) => gates !== undefined)) {
      throw new UsageError(`${files.location} has gates in front of its layers, which no other tool knows`);
    }
    const uniform = parseModelConfig(checkpoint.config, file).blocks;
    if (blocks?.some((shape, b) => !isDeepStrictEqual(shape, uniform[b])) && format !== "gguf") {
      throw new UsageError(
        `the blocks of ${files.location} differ in size, which no other tool reads; prune to a uniform width`,
      );
    }
    return await writers[format](files, checkpoint, config, resolve(output), options);
  } finally {
    await checkpoint.close();
  }
}

type Writer = (
  files: LocalModelFiles,
  checkpoint: Checkpoint,
  config: ModelConfig,
  output: string,
  options: ExportOptions,
) => Promise<ExportResult>;

const writers: Readonly<Record<ExportFormat, Writer>> = {
  gguf: exportGguf,
  safetensors: (files, checkpoint, _config, output, options) =>
    exportDirectory(files, checkpoint, output, options, async (weights) => ({
      tensors: weights.map((tensor) => plainTensor(tensor, floatDType(options.type))),
      config: checkpoint.config,
    })),
  "compressed-tensors": (files, checkpoint, { spec }, output, options) =>
    exportDirectory(files, checkpoint, output, options, async (weights) => {
      const made = await compressedTensors(weights, modulesOf(spec), floatDType(options.type), options);
      const config = withQuantizationConfig(checkpoint.config, made.quantizationConfig);
      return { tensors: made.tensors, config, result: { sparseFormat: made.format, sparsity: made.sparsity } };
    }),
};

/** The matrices of blocks that are modules of their own, stored as other tools multiply them. */
const modulesOf = ({ blocks }: ModelSpec): Set<string> =>
  new Set(
    blocks
      .flatMap(tensorsOfBlock)
      .flatMap(({ tensor, shape, transposed }) => (shape.length === 2 && !transposed ? [tensor] : [])),
  );

/** What a block of 32 at least keeps of normal numbers, with room for one large value among small ones. */
const ggufFidelity: Readonly<Record<GgufTypeId, Fidelity>> = {
  f32: { exact: "F32" },
  f16: { exact: "F16" },
  bf16: { exact: "BF16" },
  q8_0: { relativeError: 0.02 },
  q4_0: { relativeError: 0.3 },
  mxfp4: { relativeError: 0.3 },
};

async function exportGguf(
  files: LocalModelFiles,
  checkpoint: Checkpoint,
  config: ModelConfig,
  output: string,
  options: ExportOptions,
): Promise<ExportResult> {
  const { type = "f16", signal, onProgress, check } = options;
  if (!output.endsWith(".gguf")) throw new UsageError(`${output}: the name of a GGUF file ends in .gguf`);
  if ((await stat(output).catch(() => undefined))?.isDirectory()) throw new UsageError(`${output} is a directory`);
  const input = files.pathOf(ggufFileName);
  if (input !== undefined && resolve(input) === output) {
    throw new UsageError(`the output ${output} is the input; name another file`);
  }
  await using _lock = await lockPath(output);
  const job = await jobOf(checkpoint, options);
  if (options.force !== true) await refuseOther(output, job);
  const file = await newFile(output);
  try {
    await writeGguf(file.sink, checkpoint, config, {
      type,
      name: basename(output, ".gguf"),
      job,
      signal,
      onProgress,
    });
    await file.finish();
    const back = await localGgufFiles(file.temporary);
    const family = families[config.modelType].gguf!;
    const fidelity = (weights: Weights): Fidelity => ({
      ...ggufFidelity[typeOf(family, weights, type)],
      shift: normShift(family, weights.name),
    });
    const verification = await readBack(back, await weightsForGguf(family, checkpoint), fidelity, options);
    await checkTemplates(files, back);
    await check?.(back);
    await file.giveName();
    return { format: "gguf", type, bytesOnDisk: (await stat(output)).size, verification };
  } catch (error) {
    await file.sink.abort();
    throw error;
  }
}

/** @throws UsageError for a file that another job, or something else, has made */
async function refuseOther(output: string, job: string): Promise<void> {
  const source = await openFile(output);
  if (source === undefined) return;
  try {
    const header = await readGgufHeader(source).catch(() => undefined);
    if (header?.metadata.get(jobKey) === job) return;
  } finally {
    await source.close();
  }
  throw new UsageError(
    `${output} is there, and these settings and weights did not make it; name another file, or replace it (\`force\`)`,
  );
}

/** Builds a directory: weights and config as `make` gives them, the other files as they are. */
async function exportDirectory(
  files: LocalModelFiles,
  checkpoint: Checkpoint,
  output: string,
  options: ExportOptions,
  make: (weights: readonly Weights[]) => Promise<{ tensors: TensorToWrite[]; config: unknown; result?: object }>,
): Promise<ExportResult> {
  const { format, type, force, signal, onProgress, check } = options;
  await using claimed = await claimOutput(output, { inputs: [files.directory], force });
  const owner = { command: "export", job: await jobOf(checkpoint, options) };
  claimed.accept(owner);
  const weights = await plainWeights(checkpoint);
  let exported: ExportResult | undefined;
  await claimed.build(owner, async (directory) => {
    const builder = modelDirectoryBuilder(directory, options);
    const made = await make(weights);
    await builder.takeOver(files, isCompanionFile);
    await builder.add("config.json", jsonBytes(withDType(made.config, floatDType(type))));
    await builder.add(artifactFileName, serializeArtifact(withoutTensors(checkpoint.artifact)));
    await writeSafetensors(builder.sinks, made.tensors, { signal, onProgress });
    const back = directoryFiles(directory);
    const fidelity = (original: Weights) => ({ exact: floatDType(type) ?? original.dtype });
    const verification = await readBack(back, weights, fidelity, options);
    await checkTemplates(files, back);
    await check?.(back);
    let bytesOnDisk = 0;
    for (const name of await back.names()) bytesOnDisk += (await stat(join(directory, name))).size;
    exported = { format, type: type ?? "as stored", bytesOnDisk, verification, ...made.result };
    signal?.throwIfAborted();
  });
  return exported!;
}

/** What tells one export from another: format, type, every byte of the source. */
async function jobOf(checkpoint: Checkpoint, { format, type, signal, onProgress }: ExportOptions): Promise<string> {
  const source = await fingerprint(checkpoint, { signal, onProgress });
  return sha256Hex(JSON.stringify({ format, type, source }));
}

/** @throws FormatError when the chat templates of an export are not those of the original */
async function checkTemplates(files: LocalModelFiles, exported: LocalModelFiles): Promise<void> {
  const [before, after] = await Promise.all([readChatTemplates(files), readChatTemplates(exported)]);
  for (const name of new Set([...before.keys(), ...after.keys()])) {
    if (before.get(name) === after.get(name)) continue;
    throw new FormatError({
      file: exported.location,
      field: `chat template ${name}`,
      problem: "read back: it is not the one of the model",
    });
  }
}

async function readBack(
  files: LocalModelFiles,
  weights: readonly Weights[],
  fidelity: (weights: Weights) => Fidelity,
  options: ExportOptions,
): Promise<Verification> {
  const exported = await openCheckpoint(files);
  try {
    return await verifyExport(weights, exported, fidelity, options);
  } finally {
    await exported.close();
  }
}

const floatDType = (type: ExportType | undefined) => type?.toUpperCase() as FloatDType | undefined;

/** Names of dtypes in config.json; transformers 5 renamed the field. */
const torchNames: Readonly<Record<FloatDType, string>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

function withDType(config: unknown, dtype: FloatDType | undefined): unknown {
  if (dtype === undefined || !isJsonObject(config)) return config;
  const fields = ["dtype", "torch_dtype"].filter((field) => field in config);
  return { ...config, ...Object.fromEntries(fields.map((field) => [field, torchNames[dtype]])) };
}

/** How to run the model is as true of the export; how its matrices were stored is not. */
function withoutTensors(artifact: Artifact | undefined): Artifact {
  // Blocks that are described there are of the sizes that the config gives, or were refused.
  const { tensors: _tensors, blocks: _blocks, ...rest } = artifact ?? { rarefy: artifactVersion };
  return rest;
}
