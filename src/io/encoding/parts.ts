import { byteLengthOf, type DType, type TensorInfo } from "../../tensor/index.js";
import { factorPartShapes } from "../../tensor/internal.js";
import type { TensorDeclaration, TensorGrid } from "./declaration.js";

/** What a raw tensor is to the matrix it belongs to; its name in the file is `<matrix>.<part>`. Factors have names of their own. */
export type PartId = "values" | "codes" | "bitmask" | "row_offsets" | "scales" | "zeros" | (string & {});

/** A way to store a matrix, and the bytes of its parts for when it is chosen. */
export interface Candidate {
  declaration: TensorDeclaration;
  parts(): Partial<Record<PartId, Uint8Array>>;
}

export const partName = (name: string, part: PartId): string => `${name}.${part}`;

export type PartInfo = Pick<TensorInfo, "dtype" | "shape">;

/**
 * The raw tensors of a declared matrix [rows, cols], with dtypes and shapes that hold to the byte:
 *
 * - `bitmask` U8 [rows, ⌈cols / 8⌉]: entry c of a row is bit c mod 8 of byte ⌊c / 8⌋; bits beyond the row are 0.
 * - `values` [nonZeros], row by row (24-bitmask: [rows, cols / 2]).
 * - `codes` U8: without a mask [rows, ⌈cols · bits / 8⌉]; with one [⌈nonZeros · bits / 8⌉], those of the non-zeros. Least
 *   significant bit first; without a mask every row begins at a byte.
 * - `row_offsets` U32 [rows]: non-zeros in all rows before.
 * - Of factors, the parts of their kind (tensor/factors); tables of integers are U32.
 * - `scales` [rows, groups] and, when asymmetric, `zeros` U8 [rows, groups], with groups = ⌈cols / groupSize⌉.
 */
export function partsOf(declaration: TensorDeclaration): Map<PartId, PartInfo> {
  const [rows, cols] = declaration.shape;
  const parts = new Map<PartId, PartInfo>();
  const put = (part: PartId, dtype: DType, ...shape: number[]) => parts.set(part, { dtype, shape });
  const putGrid = ({ groupSize, scaleDType, symmetric }: TensorGrid) => {
    const groups = Math.ceil(cols / groupSize);
    put("scales", scaleDType, rows, groups);
    if (!symmetric) put("zeros", "U8", rows, groups);
  };

  if (declaration.encoding === "factors") {
    for (const [part, { shape, below }] of Object.entries(factorPartShapes(declaration.factors, { rows, cols }))) {
      put(part, below === undefined ? declaration.values : "U32", ...shape);
    }
    return parts;
  }
  if (declaration.encoding === "grid") {
    put("codes", "U8", rows, Math.ceil((cols * declaration.grid.bits) / 8));
    putGrid(declaration.grid);
    return parts;
  }
  put("bitmask", "U8", rows, Math.ceil(cols / 8));
  if (declaration.encoding === "24-bitmask") {
    put("values", declaration.dtype, rows, cols / 2);
    return parts;
  }
  put("row_offsets", "U32", rows);
  const { grid, nonZeros } = declaration;
  if (grid === undefined) put("values", declaration.dtype, nonZeros);
  else {
    put("codes", "U8", Math.ceil((nonZeros * grid.bits) / 8));
    putGrid(grid);
  }
  return parts;
}

/** Bytes of a declared matrix in the file, without its entries in the header. */
export function encodedBytes(declaration: TensorDeclaration): number {
  let total = 0;
  for (const part of partsOf(declaration).values()) total += byteLengthOf(part);
  return total;
}

/** The raw tensors that hold a declared matrix. */
export const partNamesOf = (name: string, declaration: TensorDeclaration): string[] =>
  Array.from(partsOf(declaration).keys(), (part) => partName(name, part));
