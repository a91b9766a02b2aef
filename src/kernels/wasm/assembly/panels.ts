import { formatF32, formatQ8 } from "../../program/layout";
import { high16, high8, highNibbles, low16, low8, lowNibbles } from "./columns";
import { isQuantised } from "./formats";
import { bf16High, bf16Low, highHalves, lowNibble } from "./math";
import { columnBytes, scaleBytes } from "./matvec";
import { panelScalesAt } from "./panelKernels";

/**
 * Unpacks `blocks` × 8 rows of one group of 32 inputs into a panel, in the order in which the kernels read it:
 * f32 [block][32 inputs][8 rows]; wide i16 [block][16 input pairs][8 rows][2]; bytes u8 [block][8 input fours][8 rows][4].
 * Scales follow as f32 [64].
 */
export function unpackPanel(
  format: i32, byteDot: bool, group: usize, rows: usize, firstRow: usize, blocks: i32, panel: usize,
): void {
  const column = columnBytes(format, rows);
  const codes = group + scaleBytes(format, rows);
  if (!isQuantised(format)) {
    for (let k: usize = 0; k < 32; k++) {
      const source = codes + k * column;
      if (format == formatF32) floatRun(source + (firstRow << 2), panel + (k << 5), blocks);
      else halfRun(source + (firstRow << 1), panel + (k << 5), blocks);
    }
    return;
  }
  const upper = highHalves();
  for (let b: usize = 0; b < <usize>blocks; b++) {
    const scales = v128.load(group + ((firstRow + (b << 3)) << 1));
    v128.store(panel + panelScalesAt + (b << 5), bf16Low(scales));
    v128.store(panel + panelScalesAt + (b << 5), bf16High(scales, upper), 16);
  }
  // Codes go 16 rows at a time; the second half of the last 16 may be rows that nobody asked for.
  for (let b = 0; b < blocks; b += 2) {
    const row = firstRow + ((<usize>b) << 3);
    const source = codes + (format == formatQ8 ? row : ((row >> 5) << 4));
    const high = format != formatQ8 && (row & 16) != 0;
    const nibbles = format != formatQ8;
    if (byteDot) {
      for (let k: usize = 0; k < 32; k += 4) byteRows(source + k * column, column, nibbles, high, panel + ((<usize>b) << 8) + (k << 3));
    } else {
      for (let k: usize = 0; k < 32; k += 2) wideRows(source + k * column, column, nibbles, high, panel + ((<usize>b) << 9) + (k << 4));
    }
  }
}

// @ts-ignore: decorator
@inline
function codes16(at: usize, nibbles: bool, high: bool): v128 {
  const v = v128.load(at);
  if (!nibbles) return v;
  return high ? highNibbles(v, lowNibble()) : lowNibbles(v, lowNibble());
}

// @ts-ignore: decorator
@inline
function floatRun(source: usize, panel: usize, blocks: i32): void {
  for (let b = 0; b < blocks; b++) {
    v128.store(panel, v128.load(source));
    v128.store(panel, v128.load(source, 16), 16);
    source += 32;
    panel += 1024;
  }
}

// @ts-ignore: decorator
@inline
function halfRun(source: usize, panel: usize, blocks: i32): void {
  const upper = highHalves();
  for (let b = 0; b < blocks; b++) {
    const v = v128.load(source);
    v128.store(panel, bf16Low(v));
    v128.store(panel, bf16High(v, upper), 16);
    source += 16;
    panel += 1024;
  }
}

// @ts-ignore: decorator
@inline
function wideRows(at: usize, column: usize, nibbles: bool, high: bool, panel: usize): void {
  const a = codes16(at, nibbles, high);
  const b = codes16(at + column, nibbles, high);
  const near = low8(a, b);
  const far = high8(a, b);
  v128.store(panel, i16x8.extend_low_i8x16_u(near));
  v128.store(panel, i16x8.extend_high_i8x16_u(near), 16);
  v128.store(panel, i16x8.extend_low_i8x16_u(far), 512);
  v128.store(panel, i16x8.extend_high_i8x16_u(far), 528);
}

// @ts-ignore: decorator
@inline
function byteRows(at: usize, column: usize, nibbles: bool, high: bool, panel: usize): void {
  const a = codes16(at, nibbles, high);
  const b = codes16(at + column, nibbles, high);
  const c = codes16(at + 2 * column, nibbles, high);
  const d = codes16(at + 3 * column, nibbles, high);
  let ab = low8(a, b);
  let cd = low8(c, d);
  v128.store(panel, low16(ab, cd));
  v128.store(panel, high16(ab, cd), 16);
  ab = high8(a, b);
  cd = high8(c, d);
  v128.store(panel, low16(ab, cd), 256);
  v128.store(panel, high16(ab, cd), 272);
}
