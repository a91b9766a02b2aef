import { shareStart } from "./elementwise";

// Rows of several experts. Strides and columns in floats; columns are multiples of 4.

/** @param a out, outStride, x, xStride, cols, count; then for each row of out the row of x */
export function gatherRows(a: usize, thread: i32): void {
  const bytes = (<usize>load<i32>(a, 16)) << 2;
  const count = load<i32>(a, 20);
  for (let n = shareStart(count, thread); n < shareStart(count, thread + 1); n++) {
    const row = load<i32>(a + 24 + ((<usize>n) << 2));
    const source = <usize>load<u32>(a, 8) + ((<usize>(row * load<i32>(a, 12))) << 2);
    memory.copy(<usize>load<u32>(a) + ((<usize>(n * load<i32>(a, 4))) << 2), source, bytes);
  }
}

/** @param a out, outStride, x, xStride, cols, rows, perRow; then [rows][perRow] pairs of slot, f32 weight */
export function addExperts(a: usize, thread: i32): void {
  const quads = load<i32>(a, 16) >> 2;
  const perRow = load<i32>(a, 24);
  const total = load<i32>(a, 20) * quads;
  for (let n = shareStart(total, thread); n < shareStart(total, thread + 1); n++) {
    const row = n / quads;
    const at = (<usize>(n % quads)) << 4;
    const out = <usize>load<u32>(a) + ((<usize>(row * load<i32>(a, 4))) << 2) + at;
    let sum = v128.load(out);
    let pair = a + 28 + ((<usize>(row * perRow)) << 3);
    for (let k = 0; k < perRow; k++, pair += 8) {
      const x = <usize>load<u32>(a, 8) + ((<usize>(load<i32>(pair) * load<i32>(a, 12))) << 2) + at;
      sum = f32x4.add(sum, f32x4.mul(v128.load32_splat(pair, 4), v128.load(x)));
    }
    v128.store(out, sum);
  }
}
