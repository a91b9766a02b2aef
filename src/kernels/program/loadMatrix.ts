import type { JobOptions } from "../../core/index.js";
import {
  isSparse,
  type PackedFormatId,
  padded,
  type SparseFormatId,
  sparseFormats,
  valueTypeOf,
  type WeightFormatId,
  weightFormats,
} from "../../pack/index.js";
import type { RowSource } from "../backend.js";
import type { Arena } from "./arena.js";
import { formatCode } from "./formatCode.js";
import { type Chunk, type Sized, Staging } from "./staging.js";
import type { ProgramMatrix, ProgramMatrixPart } from "./storage.js";

/** The kernels read them all. */
export const packedFormats = [...Object.keys(weightFormats), ...Object.keys(sparseFormats)] as PackedFormatId[];

/** Memory to look for before a stack is loaded. What leaves zeros out is never much larger than what does not. */
export function spaceFor(parts: readonly Sized[], format: PackedFormatId): number {
  const dense = weightFormats[valueTypeOf(format)];
  const matrix = dense.byteLength(packedRowsOf(parts), parts[0].cols);
  if (!isSparse(format)) return matrix + Staging.byteLength(parts) + 65536;
  return matrix * 1.25 + 2 * Staging.byteLength(parts) + 65536;
}

const packedRowsOf = (parts: readonly Sized[]) => parts.reduce((sum, part) => sum + padded(part.rows), 0);

/** Names the parts of a stack and where their rows begin, in the stack and packed. */
function placeParts(sources: readonly RowSource[]): ProgramMatrixPart[] {
  const parts: ProgramMatrixPart[] = [];
  let rowStart = 0;
  let packedStart = 0;
  for (const { name, rows } of sources) {
    parts.push({ name, rowStart, rows, packedStart });
    rowStart += rows;
    packedStart += padded(rows);
  }
  return parts;
}

export async function loadMatrix(
  arena: Arena,
  threads: number,
  sources: readonly RowSource[],
  format: PackedFormatId,
  job: JobOptions,
): Promise<ProgramMatrix> {
  const shape = {
    format,
    rows: sources.reduce((sum, source) => sum + source.rows, 0),
    cols: sources[0].cols,
    arena,
    packedRows: packedRowsOf(sources),
  };
  if (isSparse(format)) {
    const parts = await loadSparse(arena, threads, sources, format, job);
    const byteLength = parts.reduce((sum, part) => sum + part.byteLength, 0);
    return { ...shape, parts, byteLength, offset: parts[0].offset };
  }
  return { ...shape, ...(await loadDense(arena, threads, sources, format, job)) };
}

/**
 * Reads a few rows at a time into one of two buffers and packs them from there into their place, while the next are
 * being read. All parts lie side by side in one matrix, so that the columns of an input are one run of bytes.
 */
async function loadDense(
  arena: Arena,
  threads: number,
  sources: readonly RowSource[],
  format: WeightFormatId,
  job: JobOptions,
) {
  const { cols } = sources[0];
  const parts = placeParts(sources);
  const packedRows = packedRowsOf(sources);
  const byteLength = weightFormats[format].byteLength(packedRows, cols);
  const offset = arena.allocateFilled(byteLength);
  try {
    using staging = new Staging(arena, sources);
    for (const [p, source] of sources.entries()) {
      await staging.forEach(source, job, async (chunk) => {
        const firstRow = parts[p].packedStart + chunk.start;
        const finite = pack(arena, threads, chunk, cols, { offset, packedRows, format, firstRow });
        if (!finite) await source.onNonFinite?.(chunk.start, chunk.count);
      });
    }
    return { parts, byteLength, offset };
  } catch (error) {
    arena.release(offset);
    throw error;
  }
}

/** Every part by itself, as src/pack lays it out: chunks are packed densely and then thinned, once to measure, once to write. */
async function loadSparse(
  arena: Arena,
  threads: number,
  sources: readonly RowSource[],
  format: SparseFormatId,
  job: JobOptions,
) {
  const { cols } = sources[0];
  const { value, packer } = sparseFormats[format];
  const parts: (ProgramMatrixPart & { offset: number; byteLength: number })[] = [];
  using staging = new Staging(arena, sources);
  const chunkBytes = weightFormats[value].byteLength(staging.rows, cols);
  const dense = arena.allocate(chunkBytes);
  try {
    for (const [p, place] of placeParts(sources).entries()) {
      const { rows } = sources[p];
      const target = packer(rows, cols);
      const forEach = (
        use: (packed: Uint8Array, start: number, count: number, finite: boolean) => void | Promise<void>,
      ) =>
        staging.forEach(sources[p], job, (chunk) => {
          const packedRows = padded(chunk.count);
          const finite = pack(arena, threads, chunk, cols, { offset: dense, packedRows, format: value, firstRow: 0 });
          const packed = arena.bytes(dense, weightFormats[value].byteLength(packedRows, cols));
          return use(packed, chunk.start, chunk.count, finite);
        });
      await forEach(async (packed, start, count, finite) => {
        target.measure(packed, start, count);
        if (!finite) await sources[p].onNonFinite?.(start, count);
      });
      const { byteLength } = target;
      const offset = arena.allocateFilled(byteLength);
      parts.push({ ...place, offset, byteLength });
      arena.bytes(offset, byteLength).fill(0);
      await forEach((packed, start, count) => target.write(packed, start, count, arena.bytes(offset, byteLength)));
    }
    return parts;
  } catch (error) {
    for (const { offset } of parts) arena.release(offset);
    throw error;
  } finally {
    arena.release(dense);
  }
}

/** A copy of a matrix, in the same memory. */
export function copyMatrix(matrix: ProgramMatrix): ProgramMatrix {
  const { arena } = matrix;
  const copy = (offset: number, byteLength: number): number => {
    const to = arena.allocateFilled(byteLength);
    arena.bytes(to, byteLength).set(arena.bytes(offset, byteLength));
    return to;
  };
  if (!isSparse(matrix.format)) return { ...matrix, offset: copy(matrix.offset, matrix.byteLength) };
  const parts = matrix.parts.map((part) => ({ ...part, offset: copy(part.offset!, part.byteLength!) }));
  return { ...matrix, offset: parts[0].offset, parts };
}

interface PackTarget {
  offset: number;
  packedRows: number;
  format: WeightFormatId;
  /** Where the chunk's first row goes, a multiple of 32. */
  firstRow: number;
}

/** Whether all numbers of the chunk are finite; false also where a sum of them is not. */
function pack(arena: Arena, threads: number, chunk: Chunk, cols: number, target: PackTarget): boolean {
  const nonFinite = arena.scratch(16 + threads * 4096);
  const found = arena.words(nonFinite, 1);
  found[0] = 0;
  arena.record("pack", {
    source: chunk.offset,
    dtype: chunk.dtype,
    rows: chunk.count,
    cols,
    weights: target.offset,
    paddedRows: target.packedRows,
    format: formatCode(target.format),
    firstRow: target.firstRow,
    scratch: nonFinite + 16,
    scratchBytes: 4096,
    scales: chunk.scales,
    nonFinite,
  });
  arena.run();
  return found[0] === 0;
}
