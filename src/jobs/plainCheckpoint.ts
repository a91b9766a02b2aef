import type { JobOptions } from "../core/index.js";
import {
  artifactFileName,
  artifactVersion,
  type Checkpoint,
  isCompanionFile,
  type LocalModelFiles,
  serializeArtifact,
  type TensorToWrite,
  writeSafetensors,
} from "../io/index.js";
import { modelDirectoryBuilder } from "../io/index.node.js";
import { jsonBytes } from "../io/internal.js";
import { configHash } from "./source.js";

/** Writes a checkpoint that any tool reads: config and tensors of its own, the files beside the source's weights, and which source that was. */
export async function writePlainCheckpoint(
  directory: string,
  source: LocalModelFiles,
  { artifact }: Pick<Checkpoint, "artifact">,
  { config, tensors }: { config: unknown; tensors: readonly TensorToWrite[] },
  job: JobOptions,
): Promise<void> {
  const builder = modelDirectoryBuilder(directory, job);
  await builder.takeOver(source, isCompanionFile);
  await builder.add("config.json", jsonBytes(config));
  await builder.add(
    artifactFileName,
    serializeArtifact({
      rarefy: artifactVersion,
      ...(artifact?.blocks && { blocks: artifact.blocks }),
      source: { location: source.location, configSha256: await configHash(source) },
    }),
  );
  await writeSafetensors(builder.sinks, tensors, job);
}
