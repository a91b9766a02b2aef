import { AddExperts, GatherRows } from "./generated/records";
import { shareStart } from "./elementwise";

// Rows of several experts. Strides and columns in floats; columns are multiples of 4.

export function gatherRows(a: GatherRows, thread: i32): void {
  const bytes = (<usize>a.cols) << 2;
  const count = a.rowsLength;
  for (let n = shareStart(count, thread); n < shareStart(count, thread + 1); n++) {
    const source = a.x + ((<usize>(a.rows(n) * a.xStride)) << 2);
    memory.copy(a.out + ((<usize>(n * a.outStride)) << 2), source, bytes);
  }
}

export function addExperts(a: AddExperts, thread: i32): void {
  const quads = a.cols >> 2;
  const perRow = a.perRow;
  const total = a.rows * quads;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const out = a.out + ((<usize>(row * a.outStride)) << 2) + at;
    let sum = v128.load(out);
    for (let k = 0; k < perRow; k++) {
      const term = a.terms(row * perRow + k);
      if (term.slot < 0) continue;
      const x = a.x + ((<usize>(term.slot * a.xStride)) << 2) + at;
      sum = f32x4.add(sum, f32x4.mul(f32x4.splat(term.weight), v128.load(x)));
    }
    v128.store(out, sum);
  }
}
