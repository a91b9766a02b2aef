import { UsageError } from "../../core/index.js";
import { groupSize, padded, roundsInputs, rowBytes, type WeightFormatId } from "../../pack/index.js";
import type { ExpertMatrices } from "../experts.js";
import type { Activation } from "../handles.js";
import { expertListOf } from "../hostExperts.js";
import {
  type PlacedExperts,
  type PlacedRows,
  packedRowsOf,
  partStarts,
  placedBytes,
  type ScatteredColumns,
  type ScatteredColumnsOptions,
  type ScatteredRows,
  slicesOf,
  type WeightArea,
} from "../weightArea.js";
import type { Arena } from "./arena.js";
import { formatCode } from "./formatCode.js";
import * as layout from "./layout.js";
import { rowRunsOf } from "./linear.js";
import { own, type ProgramMatrix, type ProgramVector } from "./storage.js";

/** Of one thread. */
const rowsScratchBytes = (format: WeightFormatId, cols: number): number =>
  layout.rowsScratchBytes + (roundsInputs(format) ? (padded(cols) / groupSize) * layout.roundedGroupBytes : 0);

/** What an area needs of its backend. */
export interface AreaOwner {
  readonly threads: number;
  readonly dot: number;
  /** Records for a memory from now on. */
  record(arena: Arena): void;
  /** Told of bytes that the kernels do not count. */
  read(bytes: number): void;
  onDispose(area: ProgramArea): void;
}

/** Weights that the host reads into one memory as they are needed. */
export class ProgramArea implements WeightArea {
  readonly #offset: number;
  #disposed = false;

  constructor(
    readonly arena: Arena,
    readonly byteLength: number,
    readonly owner: AreaOwner,
  ) {
    this.#offset = arena.allocate(byteLength);
    arena.bytes(this.#offset, byteLength).fill(0);
  }

  bytes(offset: number, byteLength: number): Uint8Array {
    return this.arena.bytes(this.#at(offset, byteLength), byteLength);
  }

  place({ places, cols }: ScatteredColumns, index: number, offset: number): void {
    if (!(index >= 0 && index < cols)) throw new UsageError(`column ${index} of ${cols}`);
    this.arena.words(this.#at(places + 4 * index, 4), 1)[0] = this.#at(offset, 0);
  }

  linearColumns(out: Activation, x: Activation, columns: ScatteredColumns, options: ScatteredColumnsOptions): void {
    const { format, cols, parts, places, scales, sums } = columns;
    const { thresholds, bias, accumulate = false } = options;
    const { arena } = this;
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    if (x.rows !== 1 || x.cols !== cols || out.rows !== 1 || out.cols !== rows || thresholds.length !== parts.length) {
      throw new UsageError(
        `linearColumns: [${x.rows}, ${x.cols}] to [${out.rows}, ${out.cols}] by ${thresholds.length} thresholds with ${rows} × ${cols}`,
      );
    }
    this.owner.record(arena);
    const paddedRows = packedRowsOf(parts);
    const groups = padded(cols) / 32;
    const { firstGroup = 0, endGroup = groups } = options;
    let [packedRow, firstOutput] = [0, 0];
    const placed = parts.map((part) => {
      const at = { packedRow, firstOutput, rows: part.rows };
      packedRow += padded(part.rows);
      firstOutput += part.rows;
      return at;
    });
    arena.record("columnsMatvec", {
      x: own(x).readIn(arena),
      cols,
      columns: this.#at(places, 4 * cols),
      scales: this.#at(scales, 0),
      paddedRows,
      format: formatCode(format),
      dot: this.owner.dot,
      sums: this.#at(sums, slicesOf(cols) * paddedRows * 4),
      scratch: arena.scratch(this.owner.threads * layout.matvecScratchBytes),
      scratchBytes: layout.matvecScratchBytes,
      out: accumulate ? own(out).readIn(arena) : own(out).writeIn(arena),
      bias: bias === undefined ? 0 : (bias as ProgramVector).constant.readIn(arena),
      accumulate,
      slices: slicesOf(cols),
      rowRuns: rowRunsOf({ format, packedRows: paddedRows }, slicesOf(cols), this.owner.threads),
      firstGroup,
      endGroup,
      segments: placed.map((part, p) => ({
        threshold: Math.fround(thresholds[p]),
        firstRow: part.packedRow,
        endRow: part.packedRow + padded(part.rows),
        counts: true,
        parts: 1,
        weights: 0,
      })),
      parts: placed,
    });
  }

  linearRows(out: Activation, x: Activation, rows: ScatteredRows, threshold: number): void {
    const { format, cols, offsets, outputs } = rows;
    const count = offsets.length;
    const last = outputs.reduce((most, output) => Math.max(most, output), 0);
    if (x.rows !== 1 || x.cols !== cols || out.rows !== 1 || outputs.length !== count || last >= out.cols) {
      throw new UsageError(`linearRows: [${x.rows}, ${x.cols}] to column ${last} of [${out.rows}, ${out.cols}]`);
    }
    if (count === 0) return;
    const { arena } = this;
    this.owner.record(arena);
    const threadBytes = this.owner.threads * rowsScratchBytes(format, cols);
    const scratch = arena.scratch(threadBytes + 8 * count);
    // What is recorded may read the lists that are about to be overwritten.
    arena.run();
    const bytes = rowBytes(format, cols);
    this.owner.read(count * bytes);
    const lists = arena.words(scratch + threadBytes, 2 * count);
    for (let i = 0; i < count; i++) lists[i] = this.#at(offsets[i], bytes);
    lists.set(outputs, count);
    arena.record("rowsMatvec", {
      ...this.#rowsOperands(x, rows, threshold),
      ...{ rows: scratch + threadBytes, outputs: scratch + threadBytes + 4 * count, count, gate: 0, scratch },
      // What is not written must stay.
      out: own(out).readIn(arena),
    });
  }

  placeRow({ places, rows, format, cols }: PlacedRows, index: number, offset: number): void {
    if (!(index >= 0 && index < rows)) throw new UsageError(`row ${index} of ${rows}`);
    this.arena.words(this.#at(places + 4 * index, 4), 1)[0] = this.#at(offset, rowBytes(format, cols));
  }

  linearOpenRows(out: Activation, x: Activation, gate: Activation, placed: PlacedRows, threshold: number): void {
    const { format, cols, rows, places } = placed;
    const fits = x.rows === 1 && x.cols === cols && [out, gate].every((one) => one.rows === 1 && one.cols === rows);
    if (!fits)
      throw new UsageError(`linearOpenRows: [${x.rows}, ${x.cols}] to [${out.rows}, ${out.cols}] by ${rows} × ${cols}`);
    const { arena } = this;
    this.owner.record(arena);
    arena.record("rowsMatvec", {
      ...this.#rowsOperands(x, placed, threshold),
      ...{ rows: this.#at(places, 4 * rows), outputs: 0, count: rows, gate: own(gate).readIn(arena) },
      scratch: arena.scratch(this.owner.threads * rowsScratchBytes(format, cols)),
      out: own(out).writeIn(arena),
    });
  }

  #rowsOperands(x: Activation, { format, cols }: Pick<ScatteredRows, "format" | "cols">, threshold: number) {
    return {
      x: own(x).readIn(this.arena),
      cols,
      format: formatCode(format),
      dot: this.owner.dot,
      threshold: Math.fround(threshold),
      slices: slicesOf(cols),
      rowBytes: rowBytes(format, cols),
      scratchBytes: rowsScratchBytes(format, cols),
    };
  }

  experts({ experts, offsets, biases, ...shape }: PlacedExperts): ExpertMatrices {
    const parts = partStarts(shape.parts);
    const byteLength = placedBytes(shape);
    const whole = {
      format: shape.format,
      rows: parts.reduce((sum, { rows }) => sum + rows, 0),
      cols: shape.cols,
      parts,
      byteLength,
      arena: this.arena,
      packedRows: packedRowsOf(parts),
    };
    const matrices = new Map<number, ProgramMatrix>();
    for (const [expert, offset] of offsets) {
      matrices.set(expert, { ...whole, offset: this.#at(offset, byteLength) });
    }
    return expertListOf(matrices, experts, biases);
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.owner.onDispose(this);
  }

  /** Gives the memory back. */
  free(): void {
    this.arena.settle();
    this.arena.release(this.#offset);
  }

  #at(offset: number, byteLength: number): number {
    if (this.#disposed) throw new UsageError("an area that was disposed of");
    if (!(offset >= 0 && byteLength >= 0 && offset + byteLength <= this.byteLength)) {
      throw new UsageError(`bytes ${offset} to ${offset + byteLength} of an area of ${this.byteLength}`);
    }
    return this.#offset + offset;
  }
}
