import type { Checkpoint } from "../io/index.js";
import type { RowSource } from "../kernels/index.js";
import { groupSize } from "../pack/index.js";
import { dtypeBytes, type TensorInfo } from "../tensor/index.js";

/** @param bytes of the tensor from element `first` on, row-major; gone once the call returns */
export type OnRead = (tensor: TensorInfo, bytes: Uint8Array, first: number) => void;

/**
 * A stored matrix read by ranges of rows, with the scales of its grid where packed formats can take them over.
 * @param rows at least what is stored; rows beyond it are zeros.
 * @param onRead shown what was read for the first time
 */
export function tensorRows(checkpoint: Checkpoint, name: string, rows: number, onRead: OnRead): RowSource {
  const tensor = checkpoint.tensors.get(name)!;
  const { dtype, shape, grid } = tensor;
  const [storedRows, cols] = shape;
  const rowBytes = cols * dtypeBytes[dtype];
  const stored = (start: number, count: number) => Math.max(0, Math.min(count, storedRows - start));
  // Rows before this one were read already.
  let unread = 0;
  const source: RowSource = {
    name,
    rows,
    cols,
    dtype,
    async read(start, count, into) {
      const byteLength = stored(start, count) * rowBytes;
      if (byteLength > 0) await checkpoint.read(name, start * rowBytes, byteLength, into.subarray(0, byteLength));
      into.fill(0, byteLength);
      const first = Math.max(start, unread);
      unread = Math.max(unread, start + count);
      const known = Math.min((first - start) * rowBytes, byteLength);
      onRead(tensor, into.subarray(known, byteLength), first * cols);
    },
  };
  // Groups of 32 must lie within groups of the grid.
  if (grid === undefined || !grid.symmetric || (grid.groupSize % groupSize !== 0 && grid.groupSize < cols))
    return source;
  const groups = Math.ceil(cols / groupSize);
  const gridGroups = Math.ceil(cols / grid.groupSize);
  return {
    ...source,
    async scales(start, count, into) {
      into.fill(0);
      const present = stored(start, count);
      if (present === 0) return;
      const scales = await checkpoint.readScales(name, start, present);
      for (let r = 0; r < present; r++) {
        for (let g = 0; g < groups; g++) {
          into[r * groups + g] = scales[r * gridGroups + Math.floor((g * groupSize) / grid.groupSize)];
        }
      }
    },
  };
}
