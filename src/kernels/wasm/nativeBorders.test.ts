import { describe, expect, it } from "vitest";
import { normals, thinned } from "../../../test/contract/harness.js";
import { packAs, packRows, rowBytes } from "../../pack/index.js";
import { encode, type Operands } from "../program/encode.js";
import { formatCode } from "../program/formatCode.js";
import * as layout from "../program/layout.js";
import { matmulScratchBytes } from "../program/matmulScratch.js";
import type { OperationName } from "../program/records.js";
import { writeTables } from "../program/tables.js";
import type { NativeSet } from "./native.js";
import { nativeSets, openNative } from "./native.node.js";

// WebAssembly stops at the end of its memory, native code does not: so each kernel runs in a memory that is full of poison but for what
// its record names. What it reads beside that changes its results with the poison; what it writes beside that is seen.

const sets = nativeSets.filter((set) => "attach" in openNative(set, false));
/** What has no kernels for attention and for rows. */
const withoutAttention: readonly NativeSet[] = ["i8mm", "dotprod", "neon"];
const formats = ["q8", "q4", "bf16"] as const;
const sparseFormats = ["bitmask-q8", "bitmask-q4", "bitmask-bf16", "2:4-q8", "2:4-q4", "2:4-bf16"] as const;
type Format = (typeof formats)[number] | (typeof sparseFormats)[number];

/** Rows that fill whole registers and that do not, and incomplete groups of inputs. */
const shapes = [
  [32, 32],
  [96, 70],
  [224, 33],
  [608, 96],
] as const;

const margin = 256;

class PoisonedMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly #native;
  readonly #written: { at: number; byteLength: number }[] = [];
  #next = layout.heapStart;

  constructor(set: NativeSet, poison: number) {
    const native = openNative(set, false);
    if ("none" in native) throw new Error(native.none);
    this.bytes = new Uint8Array(1 << 21).fill(poison);
    this.bytes.fill(0, 0, layout.programStart);
    writeTables(this.bytes);
    this.#native = native;
    this.#mayWrite(layout.controlWork, 4);
    this.#mayWrite(layout.controlCounters, 24);
  }

  /** Puts numbers or bytes between margins of poison; returns where. */
  place({ buffer, byteOffset, byteLength }: ArrayBufferView): number {
    const at = this.#next + margin;
    this.bytes.set(new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength), at);
    this.#next = at + Math.ceil(byteLength / 64) * 64;
    return at;
  }

  /** Memory that a kernel may write. */
  space(byteLength: number): number {
    const at = this.place(new Uint8Array(byteLength));
    this.#mayWrite(at, byteLength);
    return at;
  }

  #mayWrite(at: number, byteLength: number): void {
    this.#written.push({ at, byteLength });
  }

  /** Runs a record with kernels, one after the other; nothing but what they may write has changed then. */
  run<O extends OperationName>(op: O, operands: Operands<O>, kernels: readonly number[]): void {
    const { buffer } = this.bytes;
    encode(op, operands, new Int32Array(buffer), new Float32Array(buffer), layout.programStart / 4);
    const before = this.bytes.slice();
    const call = this.#native.attach(this.bytes, 0, 1);
    for (const kernel of kernels) {
      expect(call(kernel, layout.programStart + 8)).toBe(1);
      new Int32Array(buffer)[layout.controlWork / 4] = 0;
    }
    const after = this.bytes.slice();
    for (const { at, byteLength } of this.#written) after.set(before.subarray(at, at + byteLength), at);
    expect(Buffer.compare(after, before), "what it wrote").toBe(0);
  }
}

type Run = (memory: PoisonedMemory, format: Format, rows: number, cols: number) => Uint8Array;

const matvec: Run = (memory, format, rows, cols) => {
  const x = memory.place(normals(5, cols));
  const weights = memory.place(packAs(format, thinned(format, normals(6, rows * cols), cols, 1), rows, cols));
  const slices = Math.min(2, Math.ceil(cols / 32));
  const sumBytes = slices * rows * 4;
  const sums = memory.space(sumBytes);
  const segment = { threshold: 0.3, firstRow: 0, endRow: rows, counts: true, parts: 1, weights };
  const operands = {
    ...{ x, cols, weights, paddedRows: rows, format: formatCode(format), dot: layout.dotByte, sums, scratch: 0 },
    ...{ scratchBytes: 0, out: 0, bias: 0, accumulate: false, slices, rowRuns: 1, segments: [segment], parts: [] },
  };
  memory.run("matvec", operands, [layout.nativeMatvec]);
  return memory.bytes.slice(sums, sums + sumBytes);
};

const tokens = 7;
const matmul: Run = (memory, format, paddedRows, cols) => {
  // The last tile is short of its padding, and so is the output.
  const rows = paddedRows - 3;
  const x = memory.place(normals(5, tokens * cols));
  const weights = memory.place(packAs(format, thinned(format, normals(6, rows * cols), cols, 1), rows, cols));
  const bias = memory.place(normals(7, rows));
  const run = ["bf16", "bitmask-bf16", "2:4-bf16"].includes(format) ? 128 : 32;
  const inputs = memory.space(8 * Math.ceil(cols / 32) * (run + 8));
  const scratchBytes = matmulScratchBytes(8, true);
  const scratch = memory.space(scratchBytes);
  const out = memory.space(tokens * rows * 4);
  const part = { threshold: 0.3, sparseFromRow: 2, packedRow: 0, firstOutput: 0, rows, input: 0, prepares: true };
  const operands = {
    ...{ x, xStride: cols, tokens, cols, weights, paddedRows, format: formatCode(format), dot: layout.dotByte, inputs },
    ...{ scratch, scratchBytes, out, outStride: rows, bias, accumulate: true, parts: [{ ...part, weights }] },
  };
  memory.run("matmul", operands, [layout.nativePrepare, layout.nativeTiles]);
  return memory.bytes.slice(out, out + tokens * rows * 4);
};

/** Rows that lie apart, some behind closed gates. */
const rowsMatvec = (memory: PoisonedMemory, format: "q8" | "q4", count: number, cols: number): Uint8Array => {
  const bytes = rowBytes(format, cols);
  const packed = packRows(format, normals(6, count * cols), count, cols);
  const places = Uint32Array.from({ length: count }, (_, row) =>
    memory.place(packed.subarray(row * bytes, (row + 1) * bytes)),
  );
  const scratchBytes = layout.rowsScratchBytes + Math.ceil(cols / 32) * layout.roundedGroupBytes;
  const operands = {
    ...{ x: memory.place(normals(5, cols)), cols, rows: memory.place(places), outputs: 0, count, rowBytes: bytes },
    ...{ format: formatCode(format), dot: layout.dotByte, threshold: 0.3, slices: Math.min(2, Math.ceil(cols / 32)) },
    ...{ gate: memory.place(normals(7, count)), scratch: memory.space(scratchBytes), scratchBytes },
  };
  const out = memory.space(count * 4);
  memory.run("rowsMatvec", { ...operands, out }, [layout.nativeRows]);
  return memory.bytes.slice(out, out + count * 4);
};

interface Kept {
  codeBits: 0 | 2 | 8;
  kivi: boolean;
}

/** Attention of five rows over 61 of 70 slots: what lies in the other slots is poison too. */
const attention = (memory: PoisonedMemory, poison: number, { codeBits, kivi }: Kept): Uint8Array => {
  const [rows, queryHeads, kvHeads, keyDim, valueDim, slots, used] = [5, 6, 2, 48, 64, 70, 61];
  const [coded, ring] = kivi ? [32, 40] : [codeBits > 0 ? slots : 0, 0];
  const kept = (seed: number, width: number) => {
    const floats = codeBits === 0;
    const rowBytes = floats ? width * 4 : Math.ceil((width * codeBits) / 32) * 4;
    const bytes = new Uint8Array(kvHeads * slots * rowBytes).fill(poison);
    const numbers = normals(seed, kvHeads * slots * width);
    const source = new Uint8Array(numbers.buffer);
    for (let head = 0; head < kvHeads; head++) {
      const at = head * slots * rowBytes;
      bytes.set(source.subarray(at, at + used * rowBytes), at);
    }
    return memory.place(bytes);
  };
  // s is 2⁻⁴, z is −½.
  const scales = (groups: number) => memory.place(new Uint32Array(kvHeads * groups).fill(0xb8002c00));
  const groups = Math.ceil(slots / 32);
  const operands = {
    ...{ q: memory.place(normals(5, rows * queryHeads * keyDim)), qStride: queryHeads * keyDim, rows, queryHeads },
    ...{ outStride: queryHeads * valueDim, kvHeads, keyDim, valueDim, valueStride: valueDim, slots, used },
    ...{ keys: kept(6, keyDim), values: kept(7, valueDim), codeBits, kivi, coded, ring },
    keyScales: codeBits === 0 ? 0 : scales(kivi ? groups * keyDim : slots),
    valueScales: codeBits === 0 ? 0 : scales(slots * (kivi ? valueDim / 32 : 1)),
    keyRing: kivi ? memory.place(normals(8, kvHeads * ring * keyDim)) : 0,
    valueRing: kivi ? memory.place(normals(9, kvHeads * ring * valueDim)) : 0,
    ...{ start: used - rows, causal: true, window: 0, tableOfHead: 0, lists: 0, blocks: 0, bits: 0, tables: 0 },
    ...{ scale: 0.2, softcap: 0, sinks: memory.place(normals(10, queryHeads)) },
    states: memory.space(rows * queryHeads * 8),
    scratchBytes: layout.attentionScoreBytes + 2 * 16 * (keyDim + valueDim) + 64 * (keyDim + valueDim) * 4,
  };
  const [scratch, outBytes] = [memory.space(operands.scratchBytes), rows * queryHeads * valueDim * 4];
  const out = memory.space(outBytes);
  memory.run("attention", { ...operands, scratch, out }, [layout.nativeAttention]);
  return memory.bytes.slice(out, out + outBytes);
};

describe.skipIf(sets.length === 0).each(sets)("%s kernels read and write nothing beside their own", (set) => {
  it.each(
    [...formats, ...sparseFormats].flatMap((format): { name: string; run: Run; format: Format }[] => [
      { name: "matvec", run: matvec, format },
      { name: "matmul", run: matmul, format },
    ]),
  )("$name $format", ({ run, format }) => {
    for (const [rows, cols] of shapes) {
      const [zeros, ones] = [0, 0xff].map((poison) => run(new PoisonedMemory(set, poison), format, rows, cols));
      expect(Buffer.compare(zeros, ones), `${rows} × ${cols}`).toBe(0);
    }
  });

  it.skipIf(withoutAttention.includes(set)).each([
    { codeBits: 0, kivi: false },
    { codeBits: 8, kivi: false },
    { codeBits: 2, kivi: true },
  ] as const)("attention over $codeBits bits, KIVI $kivi", (kept) => {
    const [zeros, ones] = [0, 0xff].map((poison) => attention(new PoisonedMemory(set, poison), poison, kept));
    expect(Buffer.compare(zeros, ones)).toBe(0);
    expect(new Float32Array(zeros.buffer).every(Number.isFinite)).toBe(true);
  });

  it.skipIf(withoutAttention.includes(set)).each(["q8", "q4"] as const)("rows in %s", (format) => {
    for (const [rows, cols] of shapes) {
      const [zeros, ones] = [0, 0xff].map((poison) => rowsMatvec(new PoisonedMemory(set, poison), format, rows, cols));
      expect(Buffer.compare(zeros, ones), `${rows} × ${cols}`).toBe(0);
      expect(new Float32Array(zeros.buffer).every(Number.isFinite)).toBe(true);
    }
  });

  it.skipIf(!withoutAttention.includes(set)).each([layout.nativeAttention, layout.nativeRows])(
    "leave attention and rows to WebAssembly (%d)",
    (kernel) => {
      const native = openNative(set, false);
      if ("none" in native) throw new Error(native.none);
      expect(native.attach(new Uint8Array(layout.heapStart), 0, 1)(kernel, layout.programStart)).toBe(0);
    },
  );
});
