import type { StoredFactors } from "../io/index.js";
import type { MatrixShape } from "../tensor/index.js";
import { factorRows, type RowWriter } from "../tensor/internal.js";

/** A table of which only factors are held: rows are made on the host when they are looked up. */
export class FactoredTable {
  private constructor(
    readonly shape: MatrixShape,
    /** Bytes of its factors, as they are held. */
    readonly byteLength: number,
    readonly write: RowWriter,
  ) {}

  static async load({ form, read }: StoredFactors, shape: MatrixShape): Promise<FactoredTable> {
    const parts = await read();
    const byteLength = Object.values(parts).reduce((sum, part) => sum + part.byteLength, 0);
    return new FactoredTable(shape, byteLength, factorRows(form, shape, parts));
  }

  /** f32 [ids.length, cols] */
  rowsOf(ids: Uint32Array): Float32Array {
    const { cols } = this.shape;
    const rows = new Float32Array(ids.length * cols);
    for (const [r, id] of ids.entries()) this.write(id, rows.subarray(r * cols, (r + 1) * cols));
    return rows;
  }
}
