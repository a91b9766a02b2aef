import {
  type BlockSpec,
  type ModelConfig,
  type ModelSpec,
  modelConfigOf,
  placesOf,
  type TensorRef,
} from "../../arch/index.js";
import { FormatError, UsageError } from "../../core/index.js";
import type { Checkpoint } from "../../io/index.js";
import { isWhole, writeReference } from "../../io/internal.js";
import { elementCount } from "../../tensor/index.js";
import { type DecoderBlock, effectiveWeight, vectorsOf } from "./block.js";

/** A block in memory as a model of one layer: what it holds, and its description. Closing the checkpoint closes nothing. */
export interface BlockView {
  checkpoint: Checkpoint;
  config: ModelConfig;
}

interface MemoryTensor {
  shape: readonly number[];
  values: Float32Array;
}

/** Tokens of the table that takes the place of embedding and head. */
const fewTokens = 4;

/**
 * A block as a model of one layer, so that it loads like any other: a vocabulary of four tokens of zeros takes the place of
 * embedding and head, and loading costs no more than the block.
 * @param spec the block with the sizes that it has now
 */
export function blockView(source: Checkpoint, config: ModelConfig, block: DecoderBlock, spec: BlockSpec): BlockView {
  const tensors = new Map<string, MemoryTensor>();
  const put = (ref: TensorRef, values: Float32Array) => {
    const { tensor, shape } = ref;
    if (isWhole(ref)) {
      tensors.set(tensor, { shape, values });
      return;
    }
    const whole = tensors.get(tensor) ?? { shape, values: new Float32Array(elementCount(shape)) };
    writeReference(whole.values, ref, values);
    tensors.set(tensor, whole);
  };
  const vectors = [...block.vectors.values()];
  for (const [v, ref] of vectorsOf(spec).entries()) put(ref, vectors[v].values);
  const matrices = [...block.matrices.values()];
  for (const [m, { map }] of placesOf(spec).entries()) put(map.weight, effectiveWeight(matrices[m]));

  const table = { tensor: "four tokens", shape: [fewTokens, config.hiddenSize] };
  put(table, new Float32Array(fewTokens * config.hiddenSize));
  const model: ModelSpec = {
    ...config.spec,
    vocabSize: fewTokens,
    embedding: { table },
    blocks: [spec],
    finalNorm: undefined,
    head: {
      kind: "vocabulary",
      map: { id: "head", role: "head", rows: fewTokens, cols: config.hiddenSize, weight: table },
    },
  };
  const location = `${source.location}, block ${block.layer} as it is compressed`;
  return { checkpoint: memoryCheckpoint({ location, files: source.files }, tensors), config: modelConfigOf(model) };
}

function memoryCheckpoint(
  { location, files }: Pick<Checkpoint, "location" | "files">,
  tensors: ReadonlyMap<string, MemoryTensor>,
): Checkpoint {
  const find = (name: string): Float32Array => {
    const found = tensors.get(name);
    if (found === undefined) throw new FormatError({ file: location, field: name, problem: "no such tensor" });
    return found.values;
  };
  return {
    location,
    files,
    config: {},
    tensors: new Map(Array.from(tensors, ([name, { shape }]) => [name, { name, dtype: "F32", shape }])),
    warnings: [],
    async read(name, byteOffset = 0, byteLength, into) {
      const { buffer, byteOffset: start, byteLength: total } = find(name);
      const bytes = new Uint8Array(buffer, start + byteOffset, byteLength ?? total - byteOffset);
      into?.set(bytes);
      return into ?? bytes.slice();
    },
    readFloat32: async (name) => find(name).slice(),
    async readScales(name) {
      throw new UsageError(`${name} has no grid`);
    },
    readJson: async () => undefined,
    close: async () => {},
  };
}
