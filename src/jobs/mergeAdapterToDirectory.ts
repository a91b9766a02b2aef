import { distinctBlocks, type LinearSpec, linearsOf, type TensorRef } from "../arch/index.js";
import { type JobOptions, UsageError } from "../core/index.js";
import {
  type Adapter,
  addPair,
  artifactFileName,
  artifactVersion,
  isCompanionFile,
  type LocalModelFiles,
  type ModelFiles,
  openCheckpoint,
  plainWeights,
  type Rescaling,
  readAdapter,
  rescale,
  serializeArtifact,
  sha256Hex,
  writeSafetensors,
} from "../io/index.js";
import { buildModelDirectory } from "../io/index.node.js";
import { jsonBytes, pickReference, plainTensor, withOwnBlocks, writeReference } from "../io/internal.js";
import { type Adaptation, adaptationsOf, describeDecoder } from "../model/index.js";
import { fromFloat32 } from "../tensor/index.js";
import { rowsOfShape } from "../tensor/internal.js";
import { configHash, plainConfig } from "./source.js";

/** How an adapter is merged. */
export interface MergeAdapterOptions extends JobOptions {
  /** Zeros of the weights stay zeros. */
  keepZeros?: boolean;
  /** Replace what another command has left. */
  force?: boolean;
}

/** What was merged. */
export interface MergedAdapter {
  output: string;
  model: string;
  adapter: string;
  kind: Adapter["kind"];
  /** Linear maps that changed. */
  maps: number;
}

/**
 * Writes a model with an adapter in its weights, in the types that they have. One adapted tensor is in memory at a time.
 * @throws FormatError, ProblemsError when the adapter is for another model
 */
export async function mergeAdapterToDirectory(
  files: LocalModelFiles,
  adapterFiles: ModelFiles,
  output: string,
  { keepZeros = false, force, signal, onProgress }: MergeAdapterOptions = {},
): Promise<MergedAdapter> {
  const job = { signal, onProgress };
  const checkpoint = await openCheckpoint(files);
  try {
    const { config } = await describeDecoder(checkpoint);
    const adapter = await readAdapter(adapterFiles);
    refuseRouted(adapter, adapterFiles.location);
    const adaptations = adaptationsOf(config.spec, adapter);
    const weights = await plainWeights(checkpoint);
    const configSha256 = await configHash(files);
    const made = { command: "merge", model: files.location, adapter: adapterFiles.location, keepZeros };
    const owner = { command: "merge", job: await sha256Hex(JSON.stringify({ made, configSha256 })) };
    const maps = distinctBlocks(config.spec)
      .flatMap(linearsOf)
      .filter((map) => adaptations.has(map));
    await buildModelDirectory(
      output,
      [files.directory],
      async (builder) => {
        const { raw, plain } = await plainConfig(files);
        const isPlain = Object.keys(plain).length === Object.keys(raw).length;
        await builder.takeOver(files, (name) => isCompanionFile(name) || (name === "config.json" && isPlain));
        if (!isPlain) await builder.add("config.json", jsonBytes(plain));
        const tensors = weights.map((one) => {
          const own = maps.filter(({ weight }) => weight.tensor === one.name);
          const biases = maps.flatMap((map) => biasChange(map, adaptations.get(map)!) ?? []);
          const ownBiases = biases.filter(({ bias }) => bias.tensor === one.name);
          if (own.length === 0 && ownBiases.length === 0) return plainTensor(one);
          const { name, shape, dtype, readRows } = one;
          return {
            name,
            shape,
            dtype,
            async *bytes() {
              const values = await readRows(0, rowsOfShape(shape).rows);
              for (const map of own) {
                const merged = mergedMap(pickReference(values, map.weight), map, adaptations.get(map)!, keepZeros);
                writeReference(values, map.weight, merged);
              }
              for (const { bias, rescaling } of ownBiases)
                writeReference(values, bias, rescale(pickReference(values, bias), 1, rescaling));
              yield fromFloat32(dtype, values);
            },
          };
        });
        await writeSafetensors(builder.sinks, tensors, job);
        const source = { location: files.location, configSha256 };
        const { artifact } = checkpoint;
        const merged = {
          rarefy: artifactVersion,
          blocks: artifact?.blocks && withOwnBlocks(artifact.blocks),
          origin: { training: made },
          source,
        } as const;
        await builder.add(artifactFileName, serializeArtifact(merged));
      },
      { owner, force, ...job },
    );
    return { output, model: files.location, adapter: adapterFiles.location, kind: adapter.kind, maps: maps.length };
  } finally {
    await checkpoint.close();
  }
}

/** @throws UsageError for what no weights can be made of */
function refuseRouted({ kind }: Adapter, location: string): void {
  if (kind === "lora" || kind === "ia3") return;
  throw new UsageError(
    `${location} holds a mixture of adapters: a router weighs its experts anew for every token, so that no one matrix does the ` +
      "same. Run it beside the weights (`adapter`)",
  );
}

/** Factors of outputs multiply the whole output, as PEFT does it: what is added to it too. */
function biasChange(
  { bias }: LinearSpec,
  adaptation: Adaptation,
): { bias: TensorRef; rescaling: Rescaling } | undefined {
  if (bias === undefined || adaptation.kind !== "ia3" || adaptation.rescaling.of !== "outputs") return undefined;
  return { bias, rescaling: adaptation.rescaling };
}

function mergedMap(
  weight: Float32Array,
  { cols }: LinearSpec,
  adaptation: Adaptation,
  keepZeros: boolean,
): Float32Array {
  if (adaptation.kind === "ia3") return rescale(weight, cols, adaptation.rescaling);
  if (adaptation.kind !== "lora") throw new UsageError(`a mixture (${adaptation.kind}) cannot be merged`);
  const mask = keepZeros ? Uint8Array.from(weight, (w) => (w === 0 ? 0 : 1)) : undefined;
  return addPair(weight, adaptation.pair, 1, mask);
}
