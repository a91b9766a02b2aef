import { FormatError } from "../core/index.js";
import { dtypeBytes, firstNonFinite, type TensorInfo, toFloat32 } from "../tensor/index.js";

/**
 * Looks for NaN and infinity in weights that were just read: one of them anywhere makes every result of a model meaningless.
 * @param bytes elements of the tensor, row-major, from element `first` on
 * @throws FormatError that names the file, the tensor and the place
 */
export function checkFinite(file: string, tensor: TensorInfo, bytes: Uint8Array, first = 0): void {
  const error = findNonFinite(file, tensor, bytes, first);
  if (error !== undefined) throw error;
}

/** What `checkFinite` would throw. */
export function findNonFinite(
  file: string,
  { name, dtype, shape }: TensorInfo,
  bytes: Uint8Array,
  first = 0,
): FormatError | undefined {
  const found = firstNonFinite(dtype, bytes);
  if (found < 0) return undefined;
  const size = dtypeBytes[dtype];
  const [value] = toFloat32(dtype, bytes.slice(found * size, (found + 1) * size));
  const at = first + found;
  const place = shape.length === 2 ? `row ${Math.floor(at / shape[1])}, column ${at % shape[1]}` : `entry ${at}`;
  return new FormatError({
    file,
    field: name,
    problem: `${place} is ${value}`,
    expected: "finite numbers",
    hint: "The weights are damaged, or were saved after training had diverged; take another copy of the model",
  });
}
