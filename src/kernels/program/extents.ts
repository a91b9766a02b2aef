import { padded } from "../../pack/index.js";
import { kiviGroup, rowWords } from "../kvCodes.js";
import type { Operands } from "./encode.js";
import * as layout from "./layout.js";
import { matmulScratchBytes } from "./matmulScratch.js";
import type { OperationName } from "./records.js";

/** Bytes that an operation reads or writes from `start` on. */
interface Extent {
  what: string;
  start: number;
  byteLength: number;
}

const columnBytes: readonly number[] = [4, 2, 1, 0.5];
/** The dense format of a format's codes. */
const denseOf = (format: number) => format & ((1 << layout.structureShift) - 1);
const hasScales = (dense: number) => dense === layout.formatQ8 || dense === layout.formatQ4;

/** Of a matrix in a dense format; undefined in others. */
function denseBytes(format: number, cols: number, paddedRows: number): number | undefined {
  if (format >> layout.structureShift !== layout.structureDense) return undefined;
  return (
    padded(cols) * paddedRows * columnBytes[format] + (hasScales(format) ? (padded(cols) / 32) * paddedRows * 2 : 0)
  );
}

/**
 * Of a part in a format that leaves zeros out and that native kernels take; of a bit mask what is the same for all, behind
 * which its data lie as the packer wrote them.
 */
function sparseBytes(format: number, cols: number, rows: number): number | undefined {
  const dense = denseOf(format);
  const groups = padded(cols) / 32;
  const scales = hasScales(dense) ? groups * rows * 2 : 0;
  const structure = format >> layout.structureShift;
  if (structure === layout.structureBitmask) return (cols * Math.ceil(rows / 512) + 1) * 4 + scales;
  if (structure !== layout.structureTwoOfFour) return undefined;
  // Of 32 rows and a group of inputs.
  const blockBytes = dense === layout.formatBf16 ? 8 * 144 : dense === layout.formatQ8 ? 4 * 160 : 4 * 96;
  return scales + groups * (rows / 32) * blockBytes;
}

/** Of parts that are matrices of their own, each of `rows` padded rows. */
function partExtents(format: number, cols: number, parts: readonly { weights: number; rows: number }[]): Extent[] {
  return parts.flatMap(({ weights: start, rows }) => {
    const byteLength = sparseBytes(format, cols, rows);
    return byteLength === undefined ? [] : [{ what: "weights", start, byteLength }];
  });
}

/** Rows of a part of a packed matrix, which kernels read 32 at a time; those of f32, which may be an activation, one by one. */
function checkRows(op: OperationName, format: number, first: number, count: number, paddedRows: number): void {
  const read = format === layout.formatF32 ? count : padded(count);
  if (first % 32 !== 0 || count < 0 || first + read > paddedRows)
    throw new RangeError(`${op}: rows ${first} to ${first + count} of ${paddedRows}`);
}

/** Of keys or values of a layer, all heads, with what their codes need beside them. */
function keptExtents(
  { kvHeads, slots, codeBits, kivi, ring }: Operands<"attention">,
  what: string,
  width: number,
  [start, scales, ringAt]: readonly [number, number, number],
  groups: number,
): Extent[] {
  if (codeBits === 0) return [{ what, start, byteLength: kvHeads * slots * width * 4 }];
  const rings = { what: `the ring of ${what}`, start: ringAt, byteLength: kvHeads * ring * width * 4 };
  return [
    { what, start, byteLength: kvHeads * slots * rowWords(codeBits, width) * 4 },
    { what: `scales of ${what}`, start: scales, byteLength: kvHeads * groups * 4 },
    ...(kivi ? [rings] : []),
  ];
}

/** WebAssembly stops at the end of its memory; native kernels do not, so what they are given is looked at before. */
const extentsOf: { readonly [O in OperationName]?: (a: Operands<O>) => Extent[] } = {
  matvec: ({ x, cols, weights, paddedRows, format, sums, slices, segments }) => {
    const byteLength = denseBytes(format, cols, paddedRows);
    for (const { firstRow, endRow } of segments) checkRows("matvec", format, firstRow, endRow - firstRow, paddedRows);
    return [
      { what: "x", start: x, byteLength: cols * 4 },
      { what: "sums", start: sums, byteLength: slices * paddedRows * 4 },
      ...(byteLength === undefined ? [] : [{ what: "weights", start: weights, byteLength }]),
      ...partExtents(
        format,
        cols,
        segments.map(({ weights, firstRow, endRow }) => ({ weights, rows: endRow - firstRow })),
      ),
    ];
  },
  rowsMatvec: ({ x, cols, rows, outputs, count, gate, out, scratch, scratchBytes }) => [
    { what: "x", start: x, byteLength: cols * 4 },
    { what: "rows", start: rows, byteLength: count * 4 },
    ...(outputs === 0
      ? [{ what: "out", start: out, byteLength: count * 4 }]
      : [{ what: "outputs", start: outputs, byteLength: count * 4 }]),
    ...(gate === 0 ? [] : [{ what: "gate", start: gate, byteLength: count * 4 }]),
    { what: "scratch", start: scratch, byteLength: scratchBytes },
  ],
  matmul: ({ tokens, cols, paddedRows, format, dot, parts, ...a }) => {
    const byteLength = denseBytes(format, cols, paddedRows);
    const ownParts = partExtents(
      format,
      cols,
      parts.map(({ weights, rows }) => ({ weights, rows: padded(rows) })),
    );
    if (byteLength === undefined && ownParts.length === 0) return [];
    for (const { packedRow, rows } of parts) checkRows("matmul", format, packedRow, rows, paddedRows);
    const runBytes = hasScales(denseOf(format)) ? (dot === layout.dotByte ? 32 : 64) : 128;
    const [paddedTokens, groups] = [Math.ceil(tokens / 4) * 4, padded(cols) / 32];
    const outputs = Math.max(...parts.map(({ firstOutput, rows }) => firstOutput + rows));
    const inputs = Math.max(...parts.map(({ input }) => input + 1));
    return [
      { what: "x", start: a.x, byteLength: ((tokens - 1) * a.xStride + cols) * 4 },
      ...(byteLength === undefined ? ownParts : [{ what: "weights", start: a.weights, byteLength }]),
      { what: "inputs", start: a.inputs, byteLength: inputs * paddedTokens * groups * (runBytes + 8) },
      { what: "scratch", start: a.scratch, byteLength: matmulScratchBytes(paddedTokens, byteLength === undefined) },
      { what: "out", start: a.out, byteLength: ((tokens - 1) * a.outStride + outputs) * 4 },
      ...(a.bias === 0 ? [] : [{ what: "bias", start: a.bias, byteLength: outputs * 4 }]),
    ];
  },
  // What a block mask lists was looked at when it was loaded (shapes.ts).
  attention: (a) => {
    const { rows, start, used, slots, queryHeads, kvHeads, keyDim, valueDim, valueStride, kivi } = a;
    if (queryHeads % kvHeads !== 0 || rows < 1 || start < 0 || Math.max(start + rows, used) > slots)
      throw new RangeError(
        `attention: ${queryHeads} heads over ${kvHeads}, rows ${start} to ${start + rows}, ${used} of ${slots} slots`,
      );
    const rowBytes = (stride: number, width: number) => ((rows - 1) * stride + queryHeads * width) * 4;
    const opened = a.codeBits === 0 ? 0 : layout.attentionBlockKeys * (keyDim + valueDim) * 4;
    const scratchBytes = layout.attentionScoreBytes + 16 * (keyDim + valueDim) + opened;
    if (a.scratchBytes < scratchBytes) throw new RangeError(`attention: ${a.scratchBytes} bytes of ${scratchBytes}`);
    const groups = Math.ceil(slots / kiviGroup);
    const inKeys = a.values === a.keys;
    if (inKeys && valueStride !== keyDim) throw new RangeError(`attention: a value every ${valueStride} of ${keyDim}`);
    return [
      { what: "q", start: a.q, byteLength: rowBytes(a.qStride, keyDim) },
      { what: "out", start: a.out, byteLength: rowBytes(a.outStride, valueDim) },
      ...keptExtents(a, "keys", keyDim, [a.keys, a.keyScales, a.keyRing], kivi ? groups * keyDim : slots),
      ...(inKeys
        ? []
        : keptExtents(
            a,
            "values",
            valueDim,
            [a.values, a.valueScales, a.valueRing],
            slots * (kivi ? Math.ceil(valueDim / kiviGroup) : 1),
          )),
      ...(a.sinks === 0 ? [] : [{ what: "sinks", start: a.sinks, byteLength: queryHeads * 4 }]),
      ...(a.states === 0 ? [] : [{ what: "states", start: a.states, byteLength: rows * queryHeads * 8 }]),
      { what: "scratch", start: a.scratch, byteLength: a.scratchBytes },
    ];
  },
};

/** @throws RangeError where an operation would reach beyond a memory of `memoryBytes`: a fault of this package */
export function checkExtents<O extends OperationName>(op: O, operands: Operands<O>, memoryBytes: number): void {
  const extents = (extentsOf[op] as ((a: Operands<O>) => Extent[]) | undefined)?.(operands) ?? [];
  for (const { what, start, byteLength } of extents) {
    if (!(start >= layout.heapStart && byteLength >= 0 && start + byteLength <= memoryBytes))
      throw new RangeError(`${op}: ${what} at ${start}, ${byteLength} bytes long, in a memory of ${memoryBytes}`);
  }
}
