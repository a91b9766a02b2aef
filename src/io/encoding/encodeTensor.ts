import { UsageError } from "../../core/index.js";
import { byteLengthOf, fromFloat32, type Tensor } from "../../tensor/index.js";
import type { TensorDeclaration } from "./declaration.js";
import { encodeMasked } from "./encodeMasked.js";
import { encodeOnGrid, type GridCodes } from "./encodeOnGrid.js";
import { type FloatDType, rounded } from "./floatDType.js";
import { type Candidate, encodedBytes, partName, partsOf } from "./parts.js";

/** The values of a tensor [rows, cols] or [length], and the grid they lie on. */
export interface TensorToEncode {
  shape: readonly number[];
  /** Row-major. −0 is stored as +0. */
  values: Float32Array;
  /** Used when it stands for exactly these values. */
  grid?: GridCodes;
}

/** A tensor as it is stored: its parts, and how they make it up. */
export interface EncodedTensors {
  /** What goes into the safetensors file. */
  tensors: Tensor[];
  /** What goes into `tensors` of rarefy.json under the tensor's name; undefined for plain values. */
  declaration?: TensorDeclaration;
}

/**
 * Stores a tensor in the smallest encoding that gives its values back exactly.
 * @param store "dense": plain values of `dtype`, which other tools read
 * @param dtype of plain and masked values; codes need none
 * @throws UsageError when no encoding is exact: round the values to `dtype` first
 */
export function encodeTensor(
  name: string,
  tensor: TensorToEncode,
  store: "packed" | "dense",
  dtype: FloatDType,
): EncodedTensors {
  const { shape, grid } = tensor;
  // Adding 0 turns −0 into +0.
  const values = tensor.values.map((value) => value + 0);
  const inexact = values.findIndex((value) => rounded[dtype](value) !== value);
  const candidates: Candidate[] = [];
  if (store === "packed" && shape.length === 2 && values.length > 0) {
    const [rows, cols] = shape;
    if (inexact < 0) candidates.push(...encodeMasked(values, rows, cols, dtype));
    if (grid !== undefined) candidates.push(...encodeOnGrid(values, rows, cols, grid));
  }
  let best: Candidate | undefined;
  let bestBytes = inexact < 0 ? byteLengthOf({ dtype, shape }) : Number.POSITIVE_INFINITY;
  for (const candidate of candidates) {
    const bytes = encodedBytes(candidate.declaration);
    if (bytes < bestBytes) [best, bestBytes] = [candidate, bytes];
  }
  if (best !== undefined) {
    const bytes = best.parts();
    const tensors = Array.from(partsOf(best.declaration), ([part, info]) => ({
      name: partName(name, part),
      ...info,
      bytes: bytes[part]!,
    }));
    return { tensors, declaration: best.declaration };
  }
  if (inexact < 0) return { tensors: [{ name, dtype, shape, bytes: fromFloat32(dtype, values) }] };
  throw new UsageError(
    `${name}: value ${inexact} is ${values[inexact]}, which ${dtype} does not hold exactly; round it first`,
  );
}
