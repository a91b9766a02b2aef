import { groupSize, isSparse, sparseFormats, weightFormats } from "../../pack/index.js";
import type { BackendCounters, LinearOptions } from "../backend.js";
import type { ReferenceActivation, ReferenceMatrix, ReferencePart, ReferenceVector } from "./storage.js";

/** out = x·Wᵀ (+ bias) (+ out), sums in f64. See `Backend.linear`; what is counted is stated at `BackendCounters`. */
export function linear(
  out: ReferenceActivation,
  x: ReferenceActivation,
  w: ReferenceMatrix,
  options: LinearOptions,
  counters: BackendCounters,
): void {
  const { thresholds, sparseFromRow = 0, accumulate = false } = options;
  const bias = (options.bias as ReferenceVector | undefined)?.values;
  const sparseMatrixVector = thresholds !== undefined && x.rows === 1 && sparseFromRow <= 0;

  for (const [p, part] of w.parts.entries()) {
    for (let r = 0; r < x.rows; r++) {
      const threshold = thresholds !== undefined && r >= sparseFromRow ? Math.fround(thresholds[p]) : undefined;
      const seen = threshold === undefined ? x.row(r) : x.row(r).map((v) => (Math.abs(v) <= threshold ? 0 : v));
      if (sparseMatrixVector) countSparse(seen, part, w.format, counters);

      const target = out.row(r);
      for (let j = 0; j < part.rows; j++) {
        let sum = dot(part.values, j * w.cols, seen);
        const column = part.rowStart + j;
        if (bias !== undefined) sum += bias[column];
        if (accumulate) sum += target[column];
        target[column] = sum;
      }
    }
  }
  if (!sparseMatrixVector) counters.weightBytesRead += w.byteLength;
}

function dot(weights: Float32Array, begin: number, x: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += weights[begin + i] * x[i];
  return sum;
}

function countSparse(
  seen: Float32Array,
  part: ReferencePart,
  formatId: ReferenceMatrix["format"],
  counters: BackendCounters,
): void {
  let active = 0;
  const groups = new Set<number>();
  for (let i = 0; i < seen.length; i++) {
    if (seen[i] === 0) continue;
    active++;
    groups.add(Math.floor(i / groupSize));
  }
  if (isSparse(formatId)) {
    const { bytesRead } = sparseFormats[formatId];
    counters.weightBytesRead += bytesRead(part.packed!, part.rows, seen.length, (input) => seen[input] !== 0);
  } else {
    const format = weightFormats[formatId];
    counters.weightBytesRead +=
      active * format.columnBytes(part.rows) + groups.size * format.groupScaleBytes(part.rows);
  }
  counters.inputs += seen.length;
  counters.inputsSkipped += seen.length - active;
}
