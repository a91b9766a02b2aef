import { UsageError } from "../../core/index.js";
import { fittedRoom } from "../room.js";
import type { HeldContext } from "../types.js";

/**
 * What convolutions over positions saw of the tokens of one cache, by position: the next pass begins with the last of it. It is kept
 * of all positions, so that a text may go back to any of them.
 */
export class TokenHistory implements HeldContext {
  readonly #layers = new Map<number, { values: Float32Array; rows: number }>();

  get byteLength(): number {
    return [...this.#layers.values()].reduce((sum, { values }) => sum + values.byteLength, 0);
  }

  readonly fit = fittedRoom;

  dropped(): number[] {
    return [];
  }

  /**
   * Rows that positions start − count … start − 1 of a layer had, f32 [count, cols]; zeros before position 0.
   * @throws UsageError where they were not run
   */
  before(layer: number, start: number, count: number, cols: number): Float32Array {
    const held = this.#layers.get(layer);
    const first = Math.max(0, start - count);
    if (start > (held?.rows ?? 0))
      throw new UsageError(`position ${start} of a text of which layer ${layer} has run ${held?.rows ?? 0} tokens`);
    const rows = new Float32Array(count * cols);
    if (held !== undefined) rows.set(held.values.subarray(first * cols, start * cols), (count - start + first) * cols);
    return rows;
  }

  /** The rows of positions from `start` on; those behind them are as if they had never been. */
  put(layer: number, start: number, values: Float32Array, cols: number): void {
    const rows = start + values.length / cols;
    let held = this.#layers.get(layer)?.values ?? new Float32Array(0);
    if (held.length < rows * cols) {
      const wider = new Float32Array(Math.ceil(1.5 * rows) * cols);
      wider.set(held);
      held = wider;
    }
    held.set(values, start * cols);
    this.#layers.set(layer, { values: held, rows });
  }
}
