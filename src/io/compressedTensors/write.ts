import { type JobOptions, Stage, UsageError } from "../../core/index.js";
import { elementCount, fromFloat32 } from "../../tensor/index.js";
import { rounded } from "../encoding/floatDType.js";
import type { FloatDType } from "../encoding/index.js";
import { gather, maskOf, maskOf24, rowPopulations } from "../encoding/mask.js";
import { plainTensor } from "../export/plainSafetensors.js";
import { rowChunks } from "../export/rowChunks.js";
import { isJsonObject } from "../json.js";
import type { TensorToWrite } from "../safetensorsWriter.js";
import type { SparseFormat } from "../takeStorage.js";
import type { Weights } from "../weights.js";

/** Matrices with fewer zeros than this stay plain: their mask would cost more than it saves. */
const leastSparsity = 1 / 8;

interface Counted {
  weights: Weights;
  /** Kept entries of every row. */
  perRow: Float64Array;
  nonZeros: number;
  /** No four entries have more than two that are not 0. */
  is24: boolean;
}

export interface CompressedTensors {
  format: SparseFormat;
  tensors: TensorToWrite[];
  /** `quantization_config` of config.json. */
  quantizationConfig: object;
  /** Share of zeros of the compressed matrices. */
  sparsity: number;
}

/**
 * A sparse model in the layout of compressed-tensors before sparse formats were dropped: `sparse-24-bitmask` when every sparse
 * matrix of the blocks is 2:4, else `sparse-bitmask`. Matrices with hardly any zeros stay plain and are listed under `ignore`.
 * @param maps names of the tensors that are linear maps of blocks; embeddings and the output head are never compressed
 * @param dtype of values; default: the type each tensor is known to fit
 * @throws UsageError when there is nothing sparse to compress
 */
export async function compressedTensors(
  all: readonly Weights[],
  maps: ReadonlySet<string>,
  dtype: FloatDType | undefined,
  options: JobOptions = {},
): Promise<CompressedTensors> {
  const linear = all.filter(({ name }) => maps.has(name));
  const entries = linear.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  const stage = new Stage("count zeros", entries, "weights", options.onProgress);
  const sparse: Counted[] = [];
  for (const weights of linear) {
    const counted = await count(weights, dtype ?? weights.dtype, options.signal);
    stage.advance(elementCount(weights.shape), weights.name);
    if (counted.nonZeros <= (1 - leastSparsity) * elementCount(weights.shape)) sparse.push(counted);
  }
  if (sparse.length === 0) {
    throw new UsageError("no matrix has enough zeros to be stored sparsely; export it as safetensors instead");
  }
  const format: SparseFormat = sparse.every(({ is24 }) => is24) ? "sparse-24-bitmask" : "sparse-bitmask";
  const compressed = new Map(sparse.map((counted) => [counted.weights, counted]));
  const tensors = all.flatMap((weights) => {
    const counted = compressed.get(weights);
    const type = dtype ?? weights.dtype;
    return counted === undefined
      ? [plainTensor(weights, type)]
      : compressedParts(counted, format, type, options.signal);
  });
  const total = sparse.reduce((sum, { weights }) => sum + elementCount(weights.shape), 0);
  const sparsity = 1 - sparse.reduce((sum, { nonZeros }) => sum + nonZeros, 0) / total;
  return { format, tensors, sparsity, quantizationConfig: configOf(format, sparsity, linear, compressed) };
}

async function count(weights: Weights, dtype: FloatDType, signal: AbortSignal | undefined): Promise<Counted> {
  const [rows, cols] = weights.shape;
  const perRow = new Float64Array(rows);
  let is24 = cols % 4 === 0;
  for await (const { start, count, values } of rowChunks(weights, signal)) {
    const kept = values.map(rounded[dtype]);
    perRow.set(rowPopulations(maskOf(kept, count, cols), count, cols)!, start);
    is24 &&= maskOf24(kept, count, cols) !== undefined;
  }
  return { weights, perRow, nonZeros: perRow.reduce((sum, row) => sum + row, 0), is24 };
}

function compressedParts(
  { weights, perRow, nonZeros }: Counted,
  format: SparseFormat,
  dtype: FloatDType,
  signal: AbortSignal | undefined,
): TensorToWrite[] {
  const [rows, cols] = weights.shape;
  const stem = weights.name.slice(0, -".weight".length);
  const two = format === "sparse-24-bitmask";
  /** Mask and kept values of the rows of a chunk; rounding may make further zeros. */
  const chunks = async function* () {
    for await (const { count, values } of rowChunks(weights, signal)) {
      const kept = values.map(rounded[dtype]);
      const mask = two ? maskOf24(kept, count, cols)! : maskOf(kept, count, cols);
      yield { count, kept, mask };
    }
  };
  const parts: TensorToWrite[] = [
    {
      name: `${stem}.compressed`,
      dtype,
      shape: two ? [rows, cols / 2] : [nonZeros],
      async *bytes() {
        for await (const { count, kept, mask } of chunks()) {
          const populations = rowPopulations(mask, count, cols)!;
          const out = new Float32Array(populations.reduce((sum, row) => sum + row, 0));
          gather(mask, count, cols, kept, out);
          yield fromFloat32(dtype, out);
        }
      },
    },
    {
      name: `${stem}.bitmask`,
      dtype: "U8",
      shape: [rows, Math.ceil(cols / 8)],
      async *bytes() {
        for await (const { mask } of chunks()) yield mask;
      },
    },
    { name: `${stem}.shape`, dtype: "I64", shape: two ? [2, 1] : [2], bytes: () => [int64s([rows, cols])] },
  ];
  if (!two) {
    const offsets = new Float64Array(rows);
    for (let r = 1; r < rows; r++) offsets[r] = offsets[r - 1] + perRow[r - 1];
    parts.push({ name: `${stem}.row_offsets`, dtype: "I64", shape: [rows], bytes: () => [int64s(offsets)] });
  }
  return parts;
}

function int64s(values: Iterable<number>): Uint8Array {
  return new Uint8Array(BigInt64Array.from(Array.from(values, BigInt)).buffer);
}

function configOf(
  format: SparseFormat,
  sparsity: number,
  linear: readonly Weights[],
  compressed: ReadonlyMap<Weights, Counted>,
): object {
  const plain = linear
    .filter((weights) => !compressed.has(weights))
    .map(({ name }) => name.slice(0, -".weight".length));
  return {
    config_groups: {},
    format: "dense",
    ignore: [],
    kv_cache_scheme: null,
    quant_method: "compressed-tensors",
    quantization_status: "compressed",
    sparsity_config: {
      format,
      global_sparsity: sparsity,
      ignore: ["lm_head", ...plain],
      registry_requires_subclass: false,
      sparsity_structure: format === "sparse-24-bitmask" ? "2:4" : "unstructured",
      targets: ["Linear"],
    },
  };
}

/** config.json of the exported model. */
export function withQuantizationConfig(config: unknown, quantizationConfig: object): object {
  return { ...(isJsonObject(config) ? config : {}), quantization_config: quantizationConfig };
}
