import { FormatError } from "../../core/index.js";
import { dtypeBytes, toFloat32 } from "../../tensor/index.js";
import { unpackCodes } from "./bits.js";
import type { PackedDeclaration, TensorGrid } from "./declaration.js";
import { forEachGroup } from "./gridGroups.js";
import { elementsOf, maskStride, rowPopulations, scatter } from "./mask.js";
import type { PartId } from "./parts.js";

/** The stored parts of one matrix. */
export interface Parts {
  /** File and matrix, for messages. */
  readonly file: string;
  readonly name: string;
  /** Bytes of a part, which is as long as `partsOf` says. */
  read(part: PartId, byteOffset: number, byteLength: number): Promise<Uint8Array>;
  /** How many entries of the rows before row `row` are stored, for every row of [start, start + count]. */
  offsets(start: number, count: number): Promise<Float64Array>;
}

/**
 * Rows [start, start + count) as values of the declared dtype, little-endian and row-major.
 * @throws FormatError when mask, offsets and values do not fit each other
 */
export function decodeRows(
  declaration: PackedDeclaration,
  parts: Parts,
  start: number,
  count: number,
): Promise<Uint8Array> {
  if (declaration.encoding === "grid") return decodeCodes(declaration.grid, declaration.shape[1], parts, start, count);
  if (declaration.encoding === "bitmask" && declaration.grid !== undefined) {
    return decodeMaskedCodes(declaration.grid, declaration.shape[1], parts, start, count);
  }
  return decodeMaskedValues(dtypeBytes[declaration.dtype], declaration.shape[1], parts, start, count);
}

async function decodeCodes(grid: TensorGrid, cols: number, parts: Parts, start: number, count: number) {
  const rowBytes = Math.ceil((cols * grid.bits) / 8);
  const bytes = await parts.read("codes", start * rowBytes, count * rowBytes);
  const codes = new Uint8Array(count * cols);
  for (let r = 0; r < count; r++) codes.set(unpackCodes(bytes, grid.bits, r * rowBytes * 8, cols), r * cols);
  const zeros = await readZeros(grid, cols, parts, start, count);
  return dequantize(grid, cols, codes, await readScales(grid, cols, parts, start, count), zeros);
}

async function decodeMaskedValues(size: number, cols: number, parts: Parts, start: number, count: number) {
  const { mask, first, total } = await readMask(cols, parts, start, count);
  const values = await parts.read("values", first * size, total * size);
  const out = new Uint8Array(count * cols * size);
  scatter(mask, count, cols, elementsOf(values, size), elementsOf(out, size));
  return out;
}

async function decodeMaskedCodes(grid: TensorGrid, cols: number, parts: Parts, start: number, count: number) {
  const { mask, first, total } = await readMask(cols, parts, start, count);
  const firstBit = first * grid.bits;
  const firstByte = Math.floor(firstBit / 8);
  const bytes = await parts.read("codes", firstByte, Math.ceil((firstBit + total * grid.bits) / 8) - firstByte);
  const zeros = await readZeros(grid, cols, parts, start, count);
  const codes = new Uint8Array(count * cols);
  forEachGroup(count, cols, grid.groupSize, (group, from, to) => codes.fill(zeros(group), from, to));
  scatter(mask, count, cols, unpackCodes(bytes, grid.bits, firstBit - firstByte * 8, total), codes);
  return dequantize(grid, cols, codes, await readScales(grid, cols, parts, start, count), zeros);
}

/** The bits of some rows, how many are set in all rows before, and in these. */
async function readMask(cols: number, parts: Parts, start: number, count: number) {
  const stride = maskStride(cols);
  const mask = await parts.read("bitmask", start * stride, count * stride);
  const offsets = await parts.offsets(start, count);
  const fail = (problem: string) => new FormatError({ file: parts.file, field: parts.name, problem });
  const populations = rowPopulations(mask, count, cols);
  if (populations === undefined) throw fail(`its bitmask has bits beyond the ${cols} columns`);
  for (const [r, population] of populations.entries()) {
    const values = offsets[r + 1] - offsets[r];
    if (values !== population) throw fail(`row ${start + r} has ${population} bits set and ${values} values`);
  }
  return { mask, first: offsets[0], total: offsets[count] - offsets[0] };
}

type Zeros = (group: number) => number;

/** The code that stands for 0 in each group of the rows. */
async function readZeros(grid: TensorGrid, cols: number, parts: Parts, start: number, count: number): Promise<Zeros> {
  if (grid.symmetric) return () => 1 << (grid.bits - 1);
  const groups = Math.ceil(cols / grid.groupSize);
  const zeros = await parts.read("zeros", start * groups, count * groups);
  return (group) => zeros[group];
}

/** f32 [count, groups]. */
export async function readScales(
  { groupSize, scaleDType }: TensorGrid,
  cols: number,
  parts: Pick<Parts, "read">,
  start: number,
  count: number,
): Promise<Float32Array> {
  const rowBytes = Math.ceil(cols / groupSize) * dtypeBytes[scaleDType];
  return toFloat32(scaleDType, await parts.read("scales", start * rowBytes, count * rowBytes));
}

function dequantize(grid: TensorGrid, cols: number, codes: Uint8Array, scales: Float32Array, zeros: Zeros): Uint8Array {
  const out = new Float32Array(codes.length);
  forEachGroup(codes.length / cols, cols, grid.groupSize, (group, from, to) => {
    const scale = scales[group];
    const zero = zeros(group);
    for (let i = from; i < to; i++) out[i] = scale * (codes[i] - zero);
  });
  return new Uint8Array(out.buffer);
}
