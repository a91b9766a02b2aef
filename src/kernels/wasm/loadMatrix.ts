import type { JobOptions } from "../../core/index.js";
import { padded, type WeightFormatId, weightFormats } from "../../pack/index.js";
import type { RowSource } from "../backend.js";
import { checkParts } from "../shapes.js";
import type { Arena } from "./arena.js";
import { formatBf16, formatF32, formatQ4, formatQ8, opPack } from "./layout.js";
import { type Chunk, Staging } from "./staging.js";
import type { WasmMatrix, WasmMatrixPart } from "./storage.js";

export const formatCode: Readonly<Record<WeightFormatId, number>> = {
  f32: formatF32,
  bf16: formatBf16,
  q8: formatQ8,
  q4: formatQ4,
};

/** Memory that loading a stack takes beside its place. */
export const stagingBytesOf = (parts: readonly RowSource[]): number => Staging.byteLength(parts) + 65536;

/** Bytes that a stack of parts takes once packed. */
export function packedBytes(parts: readonly RowSource[], format: WeightFormatId): number {
  return weightFormats[format].byteLength(packedRowsOf(parts), parts[0].cols);
}

const packedRowsOf = (parts: readonly RowSource[]) => parts.reduce((sum, part) => sum + padded(part.rows), 0);

/** Names the parts of a stack and where their rows begin, in the stack and packed. */
function placeParts(sources: readonly RowSource[]): WasmMatrixPart[] {
  const parts: WasmMatrixPart[] = [];
  let rowStart = 0;
  let packedStart = 0;
  for (const { name, rows } of sources) {
    parts.push({ name, rowStart, rows, packedStart });
    rowStart += rows;
    packedStart += padded(rows);
  }
  return parts;
}

/**
 * Reads a few rows at a time into one of two buffers and packs them from there into their place, while the next are
 * being read. All parts lie side by side in one matrix, so that the columns of an input are one run of bytes.
 */
export async function loadMatrix(
  arena: Arena,
  threads: number,
  sources: readonly RowSource[],
  format: WeightFormatId,
  job: JobOptions,
): Promise<WasmMatrix> {
  checkParts(sources);
  const { cols } = sources[0];
  const parts = placeParts(sources);
  const packedRows = packedRowsOf(sources);
  const byteLength = packedBytes(sources, format);
  const offset = arena.allocate(byteLength);
  try {
    using staging = new Staging(arena, sources);
    for (const [p, source] of sources.entries()) {
      await staging.forEach(source, job, (chunk) =>
        pack(arena, threads, chunk, cols, { offset, packedRows, format, firstRow: parts[p].packedStart + chunk.start }),
      );
    }
    const rows = sources.reduce((sum, source) => sum + source.rows, 0);
    return { format, rows, cols, parts, byteLength, arena, offset, packedRows };
  } catch (error) {
    arena.release(offset);
    throw error;
  }
}

interface PackTarget {
  offset: number;
  packedRows: number;
  format: WeightFormatId;
  /** Where the chunk's first row goes, a multiple of 32. */
  firstRow: number;
}

function pack(arena: Arena, threads: number, chunk: Chunk, cols: number, target: PackTarget): void {
  const scratch = arena.scratch(threads * 4096);
  const source = [chunk.offset, chunk.dtype, chunk.count, cols];
  const to = [target.offset, target.packedRows, formatCode[target.format], target.firstRow];
  arena.record(opPack, [...source, ...to, scratch, 4096, chunk.scales]);
  arena.run();
}
