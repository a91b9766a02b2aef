import { type HostRouting, noSlot } from "../routing.js";
import type { ReferenceActivation } from "./storage.js";

export function gatherRows(out: ReferenceActivation, x: ReferenceActivation, rows: Uint32Array): void {
  for (const [r, row] of rows.entries()) out.row(r).set(x.row(row));
}

export function addExperts(out: ReferenceActivation, x: ReferenceActivation, routing: HostRouting): void {
  const { rows, perRow, slots, slotsOfRows } = routing;
  for (let r = 0; r < rows; r++) {
    const target = out.row(r);
    const sums = Float64Array.from(target);
    for (const slot of slotsOfRows.subarray(r * perRow, (r + 1) * perRow)) {
      if (slot === noSlot) continue;
      const [weight, source] = [slots.weights[slot], x.row(slot)];
      for (let i = 0; i < sums.length; i++) sums[i] += weight * source[i];
    }
    target.set(sums);
  }
}
