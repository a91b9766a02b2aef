import { type JobOptions, UsageError } from "../../core/index.js";
import { padded, type WeightFormatId, weightFormats } from "../../pack/index.js";
import { type DType, dtypeBytes } from "../../tensor/index.js";
import type { RowSource } from "../backend.js";
import { checkParts } from "../shapes.js";
import type { Arena } from "./arena.js";
import { dtypeBf16, dtypeF16, dtypeF32, formatBf16, formatF32, formatQ4, formatQ8, opPack } from "./layout.js";
import type { WasmMatrix, WasmMatrixPart } from "./storage.js";

export const formatCode: Readonly<Record<WeightFormatId, number>> = {
  f32: formatF32,
  bf16: formatBf16,
  q8: formatQ8,
  q4: formatQ4,
};

const dtypeCode: Partial<Record<DType, number>> = { F32: dtypeF32, BF16: dtypeBf16, F16: dtypeF16 };

/** Stored bytes that are read at a time, unless 32 rows are more; two such buffers exist while a matrix is loaded. */
const stagingBytes = 4 << 20;

const chunkRowsOf = (cols: number) => Math.max(32, Math.floor(stagingBytes / (cols * 4) / 32) * 32);

/** Memory that loading a stack takes beside its place. */
export function stagingBytesOf(parts: readonly RowSource[]): number {
  const { cols } = parts[0];
  const rows = Math.max(...parts.map((part) => part.rows));
  return 2 * Math.min(chunkRowsOf(cols), padded(rows)) * cols * 4 + 65536;
}

/** Bytes that a stack of parts takes once packed. */
export function packedBytes(parts: readonly RowSource[], format: WeightFormatId): number {
  return weightFormats[format].byteLength(packedRowsOf(parts), parts[0].cols);
}

const packedRowsOf = (parts: readonly RowSource[]) => parts.reduce((sum, part) => sum + padded(part.rows), 0);

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
  const cols = sources[0].cols;
  const packedRows = packedRowsOf(sources);
  const byteLength = packedBytes(sources, format);
  const offset = arena.allocate(byteLength);
  const chunkRows = chunkRowsOf(cols);
  const bufferBytes = Math.min(chunkRows, padded(Math.max(...sources.map((source) => source.rows)))) * cols * 4;
  const staging = [arena.allocate(bufferBytes), arena.allocate(bufferBytes)];
  try {
    const parts: WasmMatrixPart[] = [];
    let rowStart = 0;
    let packedStart = 0;
    for (const source of sources) {
      const code = dtypeCode[source.dtype];
      if (code === undefined) throw new UsageError(`${source.name}: weights of type ${source.dtype} cannot be packed`);
      const rowBytes = cols * dtypeBytes[source.dtype];
      const read = (start: number, buffer: number) => {
        const count = Math.min(chunkRows, source.rows - start);
        return source.read(start, count, arena.bytes(buffer, count * rowBytes));
      };
      let pending = read(0, staging[0]);
      for (let start = 0, turn = 0; start < source.rows; start += chunkRows, turn ^= 1) {
        await pending;
        job.signal?.throwIfAborted();
        if (start + chunkRows < source.rows) pending = read(start + chunkRows, staging[turn ^ 1]);
        const count = Math.min(chunkRows, source.rows - start);
        const scratch = arena.scratch(threads * 4096);
        arena.record(opPack, [
          staging[turn],
          code,
          count,
          cols,
          offset,
          packedRows,
          formatCode[format],
          packedStart + start,
          scratch,
          4096,
        ]);
        arena.run();
      }
      parts.push({ name: source.name, rowStart, rows: source.rows, packedStart });
      rowStart += source.rows;
      packedStart += padded(source.rows);
    }
    return { format, rows: rowStart, cols, parts, byteLength, arena, offset, packedRows };
  } catch (error) {
    arena.release(offset);
    throw error;
  } finally {
    for (const buffer of staging) arena.release(buffer);
  }
}
