import { type JobOptions, UsageError } from "../../core/index.js";
import { groupSize, padded } from "../../pack/index.js";
import { type DType, dtypeBytes } from "../../tensor/index.js";
import type { RowSource } from "../backend.js";
import type { Arena } from "./arena.js";
import { dtypeBf16, dtypeF16, dtypeF32 } from "./layout.js";

const dtypeCode: Partial<Record<DType, number>> = { F32: dtypeF32, BF16: dtypeBf16, F16: dtypeF16 };

/** Stored bytes that are read at a time, unless 32 rows are more; two such buffers exist while a matrix is loaded. */
const chunkBytes = 4 << 20;

/** Rows of a source that lie in memory as they are stored. */
export interface Chunk {
  /** Byte offset of the rows, and the code of their type. */
  readonly offset: number;
  readonly dtype: number;
  /** Byte offset of the scales of their grid, f32 [count, groups]; 0 without. */
  readonly scales: number;
  readonly start: number;
  readonly count: number;
}

const chunkRowsOf = (cols: number) => Math.max(32, Math.floor(chunkBytes / (cols * 4) / 32) * 32);

/** What decides how much is read at a time. */
export type Sized = Pick<RowSource, "rows" | "cols"> & Partial<Pick<RowSource, "scales">>;

/** Rows and bytes of the buffers that a stack of parts is read through. */
function sizes(parts: readonly Sized[]) {
  const { cols } = parts[0];
  const rows = Math.min(chunkRowsOf(cols), padded(Math.max(...parts.map((part) => part.rows))));
  const groups = Math.ceil(cols / groupSize);
  const scaleBytes = parts.some((part) => part.scales !== undefined) ? rows * groups * 4 : 0;
  return { rows, groups, rowBytes: rows * cols * 4, scaleBytes };
}

/** Two buffers in an arena: one is read into while what lies in the other is packed. */
export class Staging implements Disposable {
  readonly #arena: Arena;
  readonly #rows: number;
  readonly #groups: number;
  readonly #buffers: { rows: number; scales: number }[] = [];

  constructor(arena: Arena, parts: readonly RowSource[]) {
    const { rows, groups, rowBytes, scaleBytes } = sizes(parts);
    this.#arena = arena;
    this.#rows = rows;
    this.#groups = groups;
    for (let i = 0; i < 2; i++) {
      const scales = scaleBytes === 0 ? 0 : arena.allocate(scaleBytes);
      this.#buffers.push({ rows: arena.allocate(rowBytes), scales });
    }
  }

  /** Bytes that reading a stack of parts takes. */
  static byteLength(parts: readonly Sized[]): number {
    const { rowBytes, scaleBytes } = sizes(parts);
    return 2 * (rowBytes + scaleBytes + 256);
  }

  /** Rows of the largest chunk. */
  get rows(): number {
    return this.#rows;
  }

  /** Reads a source from its first row to its last and shows it to `use`, a few rows at a time. */
  async forEach(source: RowSource, job: JobOptions, use: (chunk: Chunk) => void | Promise<void>): Promise<void> {
    const dtype = dtypeCode[source.dtype];
    if (dtype === undefined) throw new UsageError(`${source.name}: weights of type ${source.dtype} cannot be packed`);
    const rowBytes = source.cols * dtypeBytes[source.dtype];
    const read = async (start: number, turn: number): Promise<Chunk> => {
      const count = Math.min(this.#rows, source.rows - start);
      const { rows, scales } = this.#buffers[turn];
      await source.read(start, count, this.#arena.bytes(rows, count * rowBytes));
      await source.scales?.(start, count, this.#arena.floats(scales, count * this.#groups));
      return { offset: rows, dtype, scales: source.scales === undefined ? 0 : scales, start, count };
    };
    let pending = read(0, 0);
    for (let start = 0, turn = 0; start < source.rows; start += this.#rows, turn ^= 1) {
      const chunk = await pending;
      job.signal?.throwIfAborted();
      if (start + this.#rows < source.rows) {
        pending = read(start + this.#rows, turn ^ 1);
        // Awaited in the next round, unless `use` throws first.
        pending.catch(() => {});
      }
      await use(chunk);
    }
  }

  [Symbol.dispose](): void {
    for (const { rows, scales } of this.#buffers) {
      this.#arena.release(rows);
      if (scales > 0) this.#arena.release(scales);
    }
  }
}
