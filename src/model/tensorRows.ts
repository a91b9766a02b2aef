import type { Checkpoint } from "../io/index.js";
import type { RowSource } from "../kernels/index.js";
import { dtypeBytes } from "../tensor/index.js";

/**
 * A stored matrix read by ranges of rows.
 * @param rows at least what is stored; rows beyond it are zeros.
 * @param onRead told how many stored bytes were read.
 */
export function tensorRows(
  checkpoint: Checkpoint,
  name: string,
  rows: number,
  onRead: (byteLength: number, name: string) => void,
): RowSource {
  const { dtype, shape } = checkpoint.tensors.get(name)!;
  const [storedRows, cols] = shape;
  const rowBytes = cols * dtypeBytes[dtype];
  return {
    name,
    rows,
    cols,
    dtype,
    async read(start, count, into) {
      const stored = Math.max(0, Math.min(count, storedRows - start)) * rowBytes;
      if (stored > 0) await checkpoint.read(name, start * rowBytes, stored, into.subarray(0, stored));
      into.fill(0, stored);
      onRead(stored, name);
    },
  };
}
