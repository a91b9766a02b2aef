import { type HostRouting, noSlot } from "../routing.js";
import type { Arena } from "./arena.js";
import type { ProgramActivation } from "./storage.js";

/** Rows and weights are written into the program, which has an end. */
const wordsAtOnce = 2048;

/** Records out[r] = x[rows[r]]. */
export function gatherRows(arena: Arena, out: ProgramActivation, x: ProgramActivation, rows: Uint32Array): void {
  const source = x.readIn(arena);
  const target = out.writeIn(arena);
  for (let start = 0; start < rows.length; start += wordsAtOnce) {
    const some = rows.subarray(start, start + wordsAtOnce);
    const at = target + start * out.stride * 4;
    arena.record("gatherRows", {
      out: at,
      outStride: out.stride,
      x: source,
      xStride: x.stride,
      cols: x.cols,
      rows: some,
    });
  }
}

/** Records out[r] += Σ weight · x[slot]; see `Backend.addExperts`. */
export function addExperts(arena: Arena, out: ProgramActivation, x: ProgramActivation, routing: HostRouting): void {
  const { rows, perRow, slots, slotsOfRows } = routing;
  const source = x.readIn(arena);
  const target = out.readIn(arena);
  const rowsAtOnce = Math.max(1, Math.floor(wordsAtOnce / (2 * perRow)));
  for (let row = 0; row < rows; row += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - row);
    const some = slotsOfRows.subarray(row * perRow, (row + count) * perRow);
    arena.record("addExperts", {
      out: target + row * out.stride * 4,
      outStride: out.stride,
      x: source,
      xStride: x.stride,
      cols: x.cols,
      rows: count,
      perRow,
      terms: Array.from(some, (slot) =>
        slot === noSlot ? { slot: -1, weight: 0 } : { slot, weight: slots.weights[slot] },
      ),
    });
  }
}
