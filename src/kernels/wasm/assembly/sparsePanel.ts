import {
  formatBf16, formatQ8, structureBitmask, structureBlock, structureCsr, structureInt8Mixed, structureTiledCsl,
} from "../../program/layout";
import { hasScales, structureOf, valueOf, zeroCode } from "./formats";
import { UnpackRows } from "./generated/records";
import { bitmaskScales, scalesSize, tilesOf } from "./sparseMatvec";
import { skipBlocks, spreadHalf, spreadQ4, spreadQ8 } from "./spread";
import { takeWork } from "./sync";

// Formats that leave zeros out, unpacked for matrix-matrix products and embeddings: 64 rows of one group of 32 inputs at a
// time become a group of a dense format with 64 rows. 4-bit codes become bytes.

/** Rows of an unpacked group, and the bytes it takes at most. */
export const groupRows: usize = 64;

/**
 * @param weights of one part, and @param rows its padded rows
 * @param firstRow a multiple of 64
 */
export function unpackGroup(format: i32, weights: usize, rows: usize, cols: i32, group: i32, firstRow: usize, target: usize): void {
  const groups = (cols + 31) >> 5;
  const valid = min(cols - (group << 5), 32);
  const blocks = <i32>(min<usize>(rows - firstRow, groupRows) >> 5);
  const structure = structureOf(format);
  if (structure == structureCsr) {
    unpackCsr(weights, rows, cols, group, valid, firstRow, target);
    return;
  }
  if (structure == structureInt8Mixed) {
    memory.copy(target, weights + (firstRow << 1), <usize>blocks << 6);
    const source = weights + (rows << 1) + <usize>(group << 5) * rows + firstRow;
    for (let i: usize = 0; i < 32; i++) {
      memory.copy(target + (groupRows << 1) + i * groupRows, source + i * rows, <usize>blocks << 5);
    }
    return;
  }
  if (structure == structureTiledCsl) {
    unpackTiledCsl(weights, rows, cols, group, firstRow, target);
    return;
  }
  if (structure == structureBlock) {
    unpackBlocks(format, weights, rows, groups, group, firstRow, blocks, target);
    return;
  }
  const scales = structure == structureBitmask ? bitmaskScales(weights, rows, cols) : weights;
  const data = scales + scalesSize(format, rows, groups);
  let codes = target;
  if (hasScales(format)) {
    memory.copy(target, scales + ((<usize>group * rows + firstRow) << 1), <usize>blocks << 6);
    codes += groupRows << 1;
  }
  if (structure == structureBitmask) unpackBitmask(format, weights, data, rows, group, valid, firstRow, blocks, codes);
  else unpackTwoOfFour(format, data, rows, group, firstRow, blocks, codes);
}

function unpackBitmask(
  format: i32, weights: usize, data: usize, rows: usize, group: i32, valid: i32, firstRow: usize, blocks: i32, codes: usize,
): void {
  const tiles = tilesOf(rows);
  const value = valueOf(format);
  const bits = value == formatBf16 ? 16 : value == formatQ8 ? 8 : 4;
  const columnBytes: usize = value == formatBf16 ? groupRows << 1 : groupRows;
  for (let i = 0; i < 32; i++) {
    const column = codes + <usize>i * columnBytes;
    if (i >= valid) {
      memory.fill(column, 0, columnBytes);
      continue;
    }
    const entry = weights + ((<usize>((group << 5) + i) * tiles + (firstRow >> 9)) << 2);
    const p = skipBlocks(data + <usize>load<u32>(entry), <i32>((firstRow & 511) >> 5), bits);
    if (bits == 16) spreadHalf(p, blocks, column);
    else if (bits == 8) spreadQ8(p, blocks, column);
    // Behind the codes there is room for 32 bytes.
    else spreadQ4(p, blocks, column, codes + (groupRows << 5));
  }
}

function unpackCsr(weights: usize, rows: usize, cols: i32, group: i32, valid: i32, firstRow: usize, codes: usize): void {
  const tiles = tilesOf(rows);
  const data = bitmaskScales(weights, rows, cols);
  memory.fill(codes, 0, groupRows << 6);
  const from = <u32>(firstRow & 511);
  for (let i = 0; i < valid; i++) {
    const entry = weights + ((<usize>((group << 5) + i) * tiles + (firstRow >> 9)) << 2);
    const end = data + <usize>load<u32>(entry, 4);
    for (let p = data + <usize>load<u32>(entry); p < end; p += 4) {
      const row = load<u16>(p) - from;
      if (row >= <u32>groupRows) continue;
      const interleaved = (row & ~7) | ((row & 3) << 1) | ((row >> 2) & 1);
      store<u16>(codes + ((<usize>i * groupRows + <usize>interleaved) << 1), load<u16>(p, 2));
    }
  }
}

function unpackTiledCsl(weights: usize, rows: usize, cols: i32, group: i32, firstRow: usize, codes: usize): void {
  const across = <usize>((cols + 63) >> 6);
  const down = (rows + 127) >> 7;
  memory.fill(codes, 0, groupRows << 6);
  const entry = weights + (((firstRow >> 7) * across + <usize>(group >> 1)) << 2);
  const data = weights + ((down * across + 2) << 2);
  const end = data + (<usize>load<u32>(entry, 4) << 4);
  for (let p = data + (<usize>load<u32>(entry) << 4); p < end; p += 4) {
    const location = <u32>load<u16>(p, 2);
    const row = (location >> 6) - <u32>(firstRow & 127);
    const col = (location & 63) ^ (((location >> 6) & 7) << 3);
    if (row >= <u32>groupRows || <i32>(col >> 5) != (group & 1) || load<u16>(p) == 0) continue;
    const interleaved = (row & ~7) | ((row & 3) << 1) | ((row >> 2) & 1);
    store<u16>(codes + ((<usize>(col & 31) * groupRows + <usize>interleaved) << 1), load<u16>(p));
  }
}

function unpackBlocks(format: i32, weights: usize, rows: usize, groups: i32, group: i32, firstRow: usize, blocks: i32, target: usize): void {
  const half = valueOf(format) == formatBf16;
  const mask = weights + ((<usize>(groups + 1)) << 2) + <usize>load<u32>(weights + ((<usize>group) << 2));
  const maskWords = ((rows >> 5) + 31) >> 5;
  const firstBlock = firstRow >> 5;
  let present: usize = 0;
  let before: usize = 0;
  for (let b: usize = 0; b < rows >> 5; b++) {
    const bit = (load<u32>(mask + ((b >> 5) << 2)) >> <u32>(b & 31)) & 1;
    present += bit;
    if (b < firstBlock) before += bit;
  }
  present <<= 5;
  const shift: usize = half ? 1 : 0;
  const scales = mask + (maskWords << 2);
  const source = half ? scales : scales + (present << 1);
  const codes = half ? target : target + (groupRows << 1);
  memory.fill(target, 0, half ? 0 : groupRows << 1);
  memory.fill(codes, half ? 0 : 128, (groupRows << shift) << 5);
  for (let b: usize = 0; b < <usize>blocks; b++) {
    const block = firstBlock + b;
    if (((load<u32>(mask + ((block >> 5) << 2)) >> <u32>(block & 31)) & 1) == 0) continue;
    if (!half) memory.copy(target + (b << 6), scales + (before << 6), 64);
    for (let i: usize = 0; i < 32; i++) {
      memory.copy(codes + ((i * groupRows + (b << 5)) << shift), source + ((i * present + (before << 5)) << shift), <usize>32 << shift);
    }
    before++;
  }
}

function unpackTwoOfFour(format: i32, data: usize, rows: usize, group: i32, firstRow: usize, blocks: i32, codes: usize): void {
  const half = valueOf(format) == formatBf16;
  const blockBytes: usize = half ? 144 : valueOf(format) == formatQ8 ? 160 : 96;
  const unitBytes = (rows >> 5) * blockBytes;
  const columnBytes: usize = half ? groupRows << 1 : groupRows;
  memory.fill(codes, half ? 0 : <u8>zeroCode(format), columnBytes << 5);
  const units = half ? 8 : 4;
  for (let u = 0; u < units; u++) {
    const unit = data + <usize>(group * units + u) * unitBytes + (firstRow >> 5) * blockBytes;
    const columns = codes + <usize>u * (half ? 4 : 8) * columnBytes;
    for (let r: usize = 0; r < <usize>blocks << 5; r++) {
      const block = unit + (r >> 5) * blockBytes;
      if (half) scatterHalf(block, r, columns, columnBytes);
      else scatterBytes(block, r, valueOf(format) == formatQ8, columns, columnBytes);
    }
  }
}

/** Row r of four inputs, whose 32-row block begins at `block`. */
// @ts-ignore: decorator
@inline
function scatterHalf(block: usize, r: usize, columns: usize, columnBytes: usize): void {
  const k = r & 31;
  const interleaved = (k & ~7) | ((k & 3) << 1) | ((k >> 2) & 1);
  const target = columns + (((r & ~31) | interleaved) << 1);
  for (let n: usize = 0; n < 2; n++) {
    const position = <usize>(load<u8>(block + (n << 3) + (k >> 2)) >> <u8>((k & 3) << 1)) & 3;
    const code = load<u16>(block + (n << 6) + (interleaved << 1), 16);
    if (code != 0) store<u16>(target + position * columnBytes, code);
  }
}

/** Row r of eight inputs. */
// @ts-ignore: decorator
@inline
function scatterBytes(block: usize, r: usize, wide: bool, columns: usize, columnBytes: usize): void {
  const vector = (r & 31) >> 2;
  for (let n: usize = 0; n < 4; n++) {
    const lane = ((r & 3) << 2) + n;
    const position = (<usize>(load<u8>(block + ((vector >> 2) << 4) + lane) >> <u8>((vector & 3) << 1)) & 3) + ((n >> 1) << 2);
    let code = load<u8>(block + ((wide ? vector : vector & 3) << 4) + lane, 32);
    if (!wide) code = (vector & 4) != 0 ? code >> 4 : code & 15;
    store<u8>(columns + position * columnBytes + r, code);
  }
}

/** Rows of a matrix as f32: embeddings. */
export function unpackRows(a: UnpackRows, thread: i32): void {
  const count = a.idsLength;
  const scratch = a.scratch + <usize>(thread * a.scratchBytes);
  for (let n = takeWork(); n < count; n = takeWork()) {
    const out = a.out + ((<usize>(n * a.outStride)) << 2);
    unpackRow(a.format, a.weights, a.paddedRows, a.cols, a.ids(n), scratch, out);
  }
}

function unpackRow(format: i32, weights: usize, rows: usize, cols: i32, row: usize, scratch: usize, out: usize): void {
  const within = row & 63;
  const k = (within & ~7) | ((within & 3) << 1) | ((within >> 2) & 1);
  const quantised = hasScales(format);
  for (let g = 0; g << 5 < cols; g++) {
    unpackGroup(format, weights, rows, cols, g, row & ~63, scratch);
    const scale = quantised ? reinterpret<f32>(<u32>load<u16>(scratch + (k << 1)) << 16) : 0;
    for (let i = 0; i < min(cols - (g << 5), 32); i++) {
      const at = out + ((<usize>((g << 5) + i)) << 2);
      if (!quantised) store<u32>(at, <u32>load<u16>(scratch + (((<usize>i * groupRows) + k) << 1)) << 16);
      else store<f32>(at, scale * <f32>(<i32>load<u8>(scratch + (groupRows << 1) + <usize>i * groupRows + within) - zeroCode(format)));
    }
  }
}
