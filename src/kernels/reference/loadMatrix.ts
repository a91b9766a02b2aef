import type { JobOptions } from "../../core/index.js";
import { groupSize, isSparse, type PackedFormatId, packAs, unpackAs } from "../../pack/index.js";
import { dtypeBytes, firstNonFinite, toFloat32 } from "../../tensor/index.js";
import type { RowSource } from "../backend.js";
import type { ReferenceMatrix, ReferencePart } from "./storage.js";

/**
 * Packs every part by itself and keeps the f32 values that the packed bytes stand for, so that this backend multiplies
 * with exactly the weights that the others read.
 */
export async function loadMatrix(
  sources: readonly RowSource[],
  formatId: PackedFormatId,
  job: JobOptions,
): Promise<ReferenceMatrix> {
  const cols = sources[0].cols;
  const parts: ReferencePart[] = [];
  let rows = 0;
  let byteLength = 0;
  for (const source of sources) {
    const stored = await readFloat32(source, job);
    const scales = await readScales(source);
    const shape = [source.rows, cols] as const;
    const packed = packAs(formatId, stored, ...shape, scales);
    const part = { name: source.name, rowStart: rows, rows: source.rows, values: unpackAs(formatId, packed, ...shape) };
    parts.push(isSparse(formatId) ? { ...part, packed } : part);
    rows += source.rows;
    byteLength += packed.byteLength;
  }
  return { format: formatId, rows, cols, parts, byteLength };
}

/** f32 [rows, ⌈cols / 32⌉] of a source that lies on a grid. */
async function readScales(source: RowSource): Promise<Float32Array | undefined> {
  if (source.scales === undefined) return undefined;
  const scales = new Float32Array(source.rows * Math.ceil(source.cols / groupSize));
  await source.scales(0, source.rows, scales);
  return scales;
}

/** f32 [rows, cols] of a source, read a few rows at a time. */
async function readFloat32(source: RowSource, job: JobOptions): Promise<Float32Array> {
  const { rows, cols, dtype } = source;
  const out = new Float32Array(rows * cols);
  const bytes = new Uint8Array(groupSize * cols * dtypeBytes[dtype]);
  for (let start = 0; start < rows; start += groupSize) {
    job.signal?.throwIfAborted();
    const count = Math.min(groupSize, rows - start);
    const chunk = bytes.subarray(0, count * cols * dtypeBytes[dtype]);
    await source.read(start, count, chunk);
    if (firstNonFinite(dtype, chunk) >= 0) await source.onNonFinite?.(start, count);
    toFloat32(dtype, chunk, out.subarray(start * cols, (start + count) * cols));
  }
  return out;
}
