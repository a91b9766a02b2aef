import { NonFiniteError } from "../../core/index.js";
import {
  type CompressedMatrix,
  type Compression,
  encodeTensor,
  type FloatDType,
  type TensorDeclaration,
} from "../../io/index.js";
import { firstNonFiniteOf } from "../../model/index.js";
import { fromFloat32, type Tensor, toFloat32 } from "../../tensor/index.js";
import { type BlockMatrix, type BlockSizes, type DecoderBlock, factorNames } from "./block.js";

export interface StorageOptions {
  /** packed: the smallest exact encoding of each matrix; dense: plain values, which other tools read. */
  store: "packed" | "dense";
  /** Type of plain values. Default: each tensor's own. */
  dtype?: FloatDType;
}

/** What is known of a finished block beside its tensors. */
export interface BlockRecord {
  /** Layer of the source. */
  source: number;
  sizes: BlockSizes;
  /** Encodings, by tensor name. */
  tensors: Record<string, TensorDeclaration>;
  /** By `MatrixKey`. */
  matrices: Compression["layers"][number]["matrices"];
}

/**
 * The tensors of a block as they go into its file, as layer `layer` of the result. Values that are not on a grid are
 * rounded to the type they are stored in; what factors were folded into needs f32.
 */
export function storeBlock(
  block: DecoderBlock,
  layer: number,
  { store, dtype }: StorageOptions,
): { tensors: Tensor[]; record: BlockRecord } {
  const tensors: Tensor[] = [];
  const record: BlockRecord = { source: block.layer, sizes: block.sizes, tensors: {}, matrices: {} };
  const renamed = (name: string) => name.replace(`model.layers.${block.layer}.`, `model.layers.${layer}.`);
  const put = (
    name: string,
    shape: readonly number[],
    values: Float32Array,
    type: FloatDType,
    grid?: BlockMatrix["grid"],
  ) => {
    const exact = store === "packed" && grid !== undefined;
    const tensor = { shape, values: exact ? values : rounded(name, values, type), ...(exact && { grid }) };
    const encoded = encodeTensor(renamed(name), tensor, store, type);
    tensors.push(...encoded.tensors);
    if (encoded.declaration !== undefined) record.tensors[renamed(name)] = encoded.declaration;
  };
  const typeOf = (tensor: { dtype: FloatDType; folded: boolean }) => (tensor.folded ? "F32" : (dtype ?? tensor.dtype));

  for (const [name, vector] of block.vectors) {
    put(name, vector.shape ?? [vector.values.length], vector.values, typeOf(vector));
  }
  for (const matrix of block.matrices.values()) {
    const { name, rows, cols, weight, lowRank, grid } = matrix;
    const type = typeOf(matrix);
    if (lowRank !== undefined) {
      const { left, right } = factorNames(name);
      put(left, [rows, lowRank.rank], lowRank.left, type);
      put(right, [lowRank.rank, cols], lowRank.right, type);
    }
    if (lowRank === undefined || weight.some((value) => value !== 0)) put(name, [rows, cols], weight, type, grid);
    record.matrices[matrix.key] = describe(matrix);
  }
  return { tensors, record };
}

/** @throws NonFiniteError for what the type does not reach: F16 ends at 65504 */
function rounded(name: string, values: Float32Array, dtype: FloatDType): Float32Array {
  const stored = toFloat32(dtype, fromFloat32(dtype, values));
  const bad = firstNonFiniteOf(stored);
  if (bad < 0) return stored;
  throw new NonFiniteError(`${name}: entry ${bad} is ${values[bad]}, ${stored[bad]} as ${dtype}; store another type`);
}

function describe({ rows, cols, weight, lowRank, grid, squaredError, tokens }: BlockMatrix): CompressedMatrix {
  let nonZeros = 0;
  for (const value of weight) if (value !== 0) nonZeros++;
  return {
    rows,
    cols,
    sparsity: 1 - nonZeros / weight.length,
    nonZeros: nonZeros + (lowRank === undefined ? 0 : lowRank.rank * (rows + cols)),
    ...(squaredError !== undefined && { relativeError: Math.sqrt(squaredError) }),
    ...(tokens !== undefined && { tokens }),
    ...(grid !== undefined && { bits: grid.bits, groupSize: grid.groupSize }),
    ...(lowRank !== undefined && { rank: lowRank.rank }),
  };
}
