import { dtypeBf16, dtypeF32, formatBf16, formatF32, formatQ4, formatQ8 } from "../../program/layout";
import { Pack } from "./generated/records";
import { columnBytes, scaleBytes } from "./matvec";
import { threadCount } from "./sync";

/**
 * Packs 32 rows at a time of a row-major matrix into the input-major formats of src/pack, bit for bit as its TypeScript
 * packers do. Threads share the groups of 32 inputs. Rows and inputs past the end are written as zeros. NaN and infinity are
 * looked for here, where every number passes by anyway.
 */
export function pack(a: Pack, thread: i32): void {
  const source = a.source;
  const dtype = a.dtype;
  const rows = a.rows;
  const cols = a.cols;
  const weights = a.weights;
  const paddedRows = a.paddedRows;
  const format = a.format;
  const firstRow = a.firstRow;
  const block = a.scratch + <usize>(thread * a.scratchBytes);
  const given = a.scales;
  const groups = (cols + 31) >> 5;
  const scale = scaleBytes(format, paddedRows);
  const column = columnBytes(format, paddedRows);
  const threads = threadCount();
  // 0 in every lane while all numbers are finite, NaN for ever after.
  let spoilt = f32x4.splat(0);
  for (let g = (groups * thread) / threads; g < (groups * (thread + 1)) / threads; g++) {
    const group = weights + <usize>g * (scale + (column << 5));
    for (let r = 0; r < rows; r += 32) {
      loadBlock(block, source, dtype, r, min(32, rows - r), g << 5, min(32, cols - (g << 5)), cols);
      const row = firstRow + r;
      if (format == formatQ8 || format == formatQ4) {
        const grid: usize = given == 0 ? 0 : given + ((<usize>r * <usize>groups + <usize>g) << 2);
        const wide = format == formatQ8;
        spoilt = f32x4.add(spoilt, packQuantized(block, group, scale, column, row, wide, grid, (<usize>groups) << 2, rows - r));
      } else if (format == formatBf16) spoilt = f32x4.add(spoilt, vanish(packHalf(block, group + (row << 1), column)));
      else spoilt = f32x4.add(spoilt, vanish(copyBlock(block, group + (row << 2), column)));
    }
  }
  // Every thread writes the same word.
  if (v128.any_true(f32x4.ne(spoilt, spoilt))) store<i32>(a.nonFinite, 1);
}

/** 0 of what is finite, else NaN. */
// @ts-ignore: decorator
@inline
function vanish(x: v128): v128 {
  return f32x4.sub(x, x);
}

/** Widens 32 × 32 stored numbers into f32 block[input][row]. */
function loadBlock(block: usize, source: usize, dtype: i32, firstRow: i32, rows: i32, firstCol: i32, cols: i32, stride: i32): void {
  if (rows < 32 || cols < 32) memory.fill(block, 0, 4096);
  for (let r = 0; r < rows; r++) {
    const index = <usize>(firstRow + r) * <usize>stride + <usize>firstCol;
    const target = block + ((<usize>r) << 2);
    if (dtype == dtypeF32) {
      for (let c: usize = 0; c < <usize>cols; c++) store<f32>(target + (c << 7), load<f32>(source + ((index + c) << 2)));
    } else if (dtype == dtypeBf16) {
      for (let c: usize = 0; c < <usize>cols; c++) store<u32>(target + (c << 7), <u32>load<u16>(source + ((index + c) << 1)) << 16);
    } else {
      for (let c: usize = 0; c < <usize>cols; c++) store<f32>(target + (c << 7), widenF16(load<u16>(source + ((index + c) << 1))));
    }
  }
}

function widenF16(bits: u32): f32 {
  const sign = (bits & 0x8000) << 16;
  const magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) return reinterpret<f32>(sign | 0x7f800000 | ((magnitude & 0x3ff) << 13));
  // Scaling by 2^112 moves the exponent into place, subnormal numbers included.
  return reinterpret<f32>(sign | (magnitude << 13)) * reinterpret<f32>(0x77800000);
}

/** f32 → bf16, nearest even; NaN stays NaN. */
// @ts-ignore: decorator
@inline
function halfBits(value: f32): u32 {
  const bits = reinterpret<u32>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >> 16) | 0x40;
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

// @ts-ignore: decorator
@inline
function interleaved8(row: usize): usize {
  return (row & ~7) | ((row & 3) << 1) | ((row >> 2) & 1);
}

/** As `halfBits`, in the upper half of every lane; the lower one is left over. */
// @ts-ignore: decorator
@inline
function halvesOf(x: v128): v128 {
  const even = v128.and(i32x4.shr_u(x, 16), i32x4.splat(1));
  const rounded = i32x4.add(i32x4.add(x, i32x4.splat(0x7fff)), even);
  return v128.bitselect(v128.or(x, i32x4.splat(0x400000)), rounded, f32x4.ne(x, x));
}

/** @returns a sum over the block: finite unless one of its numbers is not, or it passes the largest f32 on the way */
function packHalf(block: usize, target: usize, column: usize): v128 {
  let sum = f32x4.splat(0);
  for (let k: usize = 0; k < 32; k++) {
    for (let r: usize = 0; r < 32; r += 8) {
      const low = v128.load(block + (k << 7) + (r << 2));
      const high = v128.load(block + (k << 7) + (r << 2), 16);
      sum = f32x4.add(sum, f32x4.add(low, high));
      const words = v128.or(i32x4.shr_u(halvesOf(low), 16), v128.and(halvesOf(high), i32x4.splat(0xffff0000)));
      v128.store(target + k * column + (r << 1), words);
    }
  }
  return sum;
}

/** @returns a sum as that of `packHalf` */
function copyBlock(block: usize, target: usize, column: usize): v128 {
  let sum = f32x4.splat(0);
  for (let k: usize = 0; k < 32; k++) {
    for (let at: usize = 0; at < 128; at += 32) {
      const first = v128.load(block + (k << 7) + at);
      const second = v128.load(block + (k << 7) + at, 16);
      sum = f32x4.add(sum, f32x4.add(first, second));
      v128.store(target + k * column + at, first);
      v128.store(target + k * column + at, second, 16);
    }
  }
  return sum;
}

/**
 * Scale max|w| / (zero − 1) rounded up to bf16, or that of the grid where it serves, to the nearest bf16; codes
 * zero + round(w / scale), nearest even, by the scale of the grid as it was given. The largest number of a group is not finite
 * when one of them is not.
 * @returns 0 in every lane, or NaN where a number is not finite
 * @param grid the scales of the first row's grid or 0, and @param gridStride bytes to those of the next of `rows` rows
 */
function packQuantized(
  block: usize, group: usize, scaleArea: usize, column: usize, row: usize, wide: bool, grid: usize, gridStride: usize, rows: i32,
): v128 {
  let spoilt = f32x4.splat(0);
  const zero = wide ? 128 : 8;
  for (let r: usize = 0; r < 32; r += 4) {
    let largest = f32x4.splat(0);
    let smallest = largest;
    for (let k: usize = 0; k < 32; k++) {
      const w = v128.load(block + (k << 7) + (r << 2));
      largest = f32x4.max(largest, w);
      smallest = f32x4.min(smallest, w);
    }
    let exact = f32x4.div(f32x4.max(largest, f32x4.neg(smallest)), f32x4.splat(<f32>(zero - 1)));
    spoilt = f32x4.add(spoilt, vanish(exact));
    let given = f32x4.splat(0);
    let taken = given;
    if (grid != 0) {
      const first = grid + r * gridStride;
      if (<i32>r < rows) given = f32x4.replace_lane(given, 0, load<f32>(first));
      if (<i32>r + 1 < rows) given = f32x4.replace_lane(given, 1, load<f32>(first + gridStride));
      if (<i32>r + 2 < rows) given = f32x4.replace_lane(given, 2, load<f32>(first + 2 * gridStride));
      if (<i32>r + 3 < rows) given = f32x4.replace_lane(given, 3, load<f32>(first + 3 * gridStride));
      taken = holds(given, smallest, largest, <f32>zero);
      exact = v128.bitselect(nearestHalf(given), exact, taken);
    }
    const stored = f32x4(
      storeScale(group, row + r, f32x4.extract_lane(exact, 0)),
      storeScale(group, row + r + 1, f32x4.extract_lane(exact, 1)),
      storeScale(group, row + r + 2, f32x4.extract_lane(exact, 2)),
      storeScale(group, row + r + 3, f32x4.extract_lane(exact, 3)),
    );
    const scale = v128.bitselect(given, stored, taken);
    const inverse = v128.and(f32x4.div(f32x4.splat(1), scale), f32x4.gt(scale, f32x4.splat(0)));
    for (let k: usize = 0; k < 32; k++) {
      const at = block + (k << 7) + (r << 2);
      const code = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(at), inverse)));
      v128.store(at, i32x4.add(code, i32x4.splat(zero)));
    }
  }
  const codes = group + scaleArea;
  for (let k: usize = 0; k < 32; k++) {
    const source = block + (k << 7);
    if (wide) {
      const target = codes + k * column + row;
      for (let r: usize = 0; r < 32; r++) store<u8>(target + r, load<u8>(source + (r << 2)));
    } else {
      const target = codes + k * column + (row >> 1);
      for (let r: usize = 0; r < 16; r++) {
        store<u8>(target + r, load<u8>(source + (r << 2)) | (load<u8>(source + ((r + 16) << 2)) << 4));
      }
    }
  }
  return spoilt;
}

/** Lanes whose scale makes codes that hold what lies between the two, and stays in the range of bf16 where it is rounded. */
// @ts-ignore: decorator
@inline
function holds(scale: v128, smallest: v128, largest: v128, zero: f32): v128 {
  const normal = v128.and(
    f32x4.ge(scale, f32x4.splat(1.1754943508222875e-38)),
    f32x4.lt(scale, f32x4.splat(1.7014118346046923e38)),
  );
  const inverse = f32x4.div(f32x4.splat(1), scale);
  const fits = v128.and(
    f32x4.ge(f32x4.mul(smallest, inverse), f32x4.splat(-zero - 0.5)),
    f32x4.lt(f32x4.mul(largest, inverse), f32x4.splat(zero - 0.5)),
  );
  return v128.and(normal, fits);
}

/** Numbers rounded to the nearest bf16, halves to even. */
// @ts-ignore: decorator
@inline
function nearestHalf(values: v128): v128 {
  const odd = v128.and(i32x4.shr_u(values, 16), i32x4.splat(1));
  return v128.and(i32x4.add(i32x4.add(values, i32x4.splat(0x7fff)), odd), i32x4.splat(0xffff0000));
}

/** Stores the smallest bf16 number ≥ value, or 0 where that would be subnormal, and returns it. */
// @ts-ignore: decorator
@inline
function storeScale(group: usize, row: usize, value: f32): f32 {
  let bits = value < 1.1754943508222875e-38 ? 0 : halfBits(value);
  if (bits != 0 && reinterpret<f32>(bits << 16) < value) bits++;
  store<u16>(group + (interleaved8(row) << 1), <u16>bits);
  return reinterpret<f32>(bits << 16);
}
