import type { BlockSpec, TensorRef } from "../../arch/index.js";
import { placesOf } from "../../arch/internal.js";
import type { FittedFactors } from "../../compress/index.js";
import { NonFiniteError } from "../../core/index.js";
import {
  type CompressedMatrix,
  type Compression,
  encodeTensor,
  type FloatDType,
  type TensorDeclaration,
} from "../../io/index.js";
import { encodeFactors, homeTensor, isWhole, writeReference } from "../../io/internal.js";
import { firstNonFiniteOf } from "../../model/index.js";
import { factorNames } from "../../model/internal.js";
import { elementCount, factorParameters, fromFloat32, type Tensor, toFloat32 } from "../../tensor/index.js";
import { type BlockMatrix, type BlockSizes, type DecoderBlock, vectorsOf } from "./block.js";

/** How matrices of a result can be stored; the first is the default. */
export const stores = ["packed", "dense"] as const;

/** How the matrices of the result are stored. */
export interface StorageOptions {
  /** packed: the smallest exact encoding of each matrix; dense: plain values, which other tools read. Default "packed". */
  store?: (typeof stores)[number];
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
  /** By id. */
  matrices: Compression["layers"][number]["matrices"];
}

/**
 * The tensors of a block as they go into its file. Values that are not on a grid are rounded to the type they are stored in;
 * what factors were folded into needs f32, and so do codes that share a tensor with others.
 * @param target the block in the result, whose tensors have other names and shapes where layers or units went
 */
export function storeBlock(
  block: DecoderBlock,
  target: BlockSpec,
  { store = stores[0], dtype }: StorageOptions,
): { tensors: Tensor[]; record: BlockRecord } {
  const tensors: Tensor[] = [];
  const record: BlockRecord = { source: block.layer, sizes: block.sizes, tensors: {}, matrices: {} };
  const put = (
    name: string,
    shape: readonly number[],
    values: Float32Array,
    type: FloatDType,
    grid?: BlockMatrix["grid"],
  ) => {
    const exact = store === "packed" && grid !== undefined;
    const tensor = { shape, values: exact ? values : rounded(name, values, type), ...(exact && { grid }) };
    const encoded = encodeTensor(name, tensor, store, type);
    tensors.push(...encoded.tensors);
    if (encoded.declaration !== undefined) record.tensors[name] = encoded.declaration;
  };
  const shared = new Map<string, { shape: readonly number[]; values: Float32Array; type: FloatDType }>();
  const share = (ref: TensorRef, values: Float32Array, type: FloatDType) => {
    const { tensor, shape } = ref;
    const whole = shared.get(tensor) ?? { shape, values: new Float32Array(elementCount(shape)), type };
    writeReference(whole.values, ref, values);
    shared.set(tensor, type === "F32" ? { ...whole, type } : whole);
  };
  const typeOf = (tensor: { dtype: FloatDType; folded: boolean }) => (tensor.folded ? "F32" : (dtype ?? tensor.dtype));

  const places = placesOf(target);
  const refs = vectorsOf(target);
  for (const [v, vector] of [...block.vectors.values()].entries()) {
    const ref = refs[v];
    if (isWhole(ref)) put(ref.tensor, ref.shape, vector.values, typeOf(vector));
    else share(ref, vector.values, typeOf(vector));
  }
  const placed = [...block.matrices.values()].map((matrix, m) => ({ matrix, map: places[m].map }));
  // A tensor of several maps holds all of them, or none: those beside a map in factors lie alone too.
  const apart = new Set(
    placed.flatMap(({ matrix, map }) => (matrix.lowRank || matrix.factors ? map.weight.tensor : [])),
  );
  for (const { matrix, map } of placed) {
    const { rows, cols, weight, lowRank, factors, grid } = matrix;
    const ref = map.weight;
    const home = homeTensor(map);
    const type = typeOf(matrix);
    if (lowRank !== undefined) {
      const { left, right } = factorNames(home);
      put(left, [rows, lowRank.rank], lowRank.left, type);
      put(right, [lowRank.rank, cols], lowRank.right, type);
    }
    if (factors !== undefined) {
      const encoded = encodeFactors(home, [rows, cols], roundedParts(home, factors, type), type);
      tensors.push(...encoded.tensors);
      record.tensors[home] = encoded.declaration;
    } else if (!isWhole(ref) && !apart.has(ref.tensor)) share(ref, weight, grid === undefined ? type : "F32");
    else if (lowRank === undefined || weight.some((value) => value !== 0)) put(home, [rows, cols], weight, type, grid);
    record.matrices[matrix.key] = describe(matrix);
  }
  for (const [name, { shape, values, type }] of shared) put(name, shape, values, type);
  return { tensors, record };
}

/** @throws NonFiniteError */
function roundedParts(name: string, { factors, parts }: FittedFactors, dtype: FloatDType): FittedFactors {
  const stored = Object.entries(parts).map(([part, values]) => [
    part,
    values instanceof Uint32Array ? values : rounded(`${name}.${part}`, values, dtype),
  ]);
  return { factors, parts: Object.fromEntries(stored) };
}

/** @throws NonFiniteError for what the type does not reach: F16 ends at 65504 */
function rounded(name: string, values: Float32Array, dtype: FloatDType): Float32Array {
  const stored = toFloat32(dtype, fromFloat32(dtype, values));
  const bad = firstNonFiniteOf(stored);
  if (bad < 0) return stored;
  throw new NonFiniteError(`${name}: entry ${bad} is ${values[bad]}, ${stored[bad]} as ${dtype}; store another type`);
}

function describe(matrix: BlockMatrix): CompressedMatrix {
  const { rows, cols, weight, lowRank, factors, grid, squaredError, tokens } = matrix;
  const { expert } = matrix.place;
  let nonZeros = 0;
  for (const value of weight) if (value !== 0) nonZeros++;
  return {
    rows,
    cols,
    sparsity: factors === undefined ? 1 - nonZeros / weight.length : 0,
    nonZeros:
      factors === undefined
        ? nonZeros + (lowRank === undefined ? 0 : lowRank.rank * (rows + cols))
        : factorParameters(factors.factors, { rows, cols }),
    ...(squaredError !== undefined && { relativeError: Math.sqrt(squaredError) }),
    ...(expert !== undefined && { expert }),
    ...(tokens !== undefined && { tokens }),
    ...(grid !== undefined && { bits: grid.bits, groupSize: grid.groupSize }),
    ...(lowRank !== undefined && { rank: lowRank.rank }),
    ...(factors !== undefined && { factors: factors.factors.kind }),
  };
}
