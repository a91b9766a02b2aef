import { FormatError, RarefyError } from "../../core/index.js";
import type { Document } from "./document.js";
import { checkParquetPages } from "./parquetPages.js";

/**
 * The rows of a Parquet file, as JSON would have them. Pages are plain or in a dictionary, and stored as they are or by Snappy: what
 * the package datasets and the Hub write.
 * @throws FormatError
 */
export async function readParquet(bytes: Uint8Array, file: string): Promise<Document[]> {
  const { parquetMetadata, parquetReadObjects } = await import("hyparquet");
  try {
    const metadata = parquetMetadata(bytes, { geoparquet: false });
    await checkParquetPages(bytes, metadata, file);
    const buffer = {
      byteLength: bytes.byteLength,
      // A copy, also of what is a Buffer of Node.js.
      slice: (start: number, end?: number) => new Uint8Array(bytes.subarray(start, end)).buffer,
    };
    const rows = await parquetReadObjects({ file: buffer, metadata, geoparquet: false });
    return rows.map((row) => jsonOf(row) as Document);
  } catch (cause) {
    if (cause instanceof RarefyError) throw cause;
    // The library tells of what is wrong by all kinds of errors.
    throw new FormatError({ file, problem: `no sound Parquet file: ${(cause as Error).message}` }, { cause });
  }
}

/** Whole numbers beyond 2⁵³ become texts; dates are texts; lists of numbers are lists. */
function jsonOf(value: unknown, depth = 0): unknown {
  if (depth > 32) throw new Error("values are nested too deep");
  if (typeof value === "bigint") return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? null : value.toISOString();
  if (ArrayBuffer.isView(value)) return Array.from(value as Uint8Array, (item) => jsonOf(item, depth + 1));
  if (Array.isArray(value)) return value.map((item) => jsonOf(item, depth + 1));
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, jsonOf(item, depth + 1)]));
  }
  return value ?? null;
}
