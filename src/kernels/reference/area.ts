import { UsageError } from "../../core/index.js";
import { groupSize, padded, rowBytes, unpackRow, weightFormats } from "../../pack/index.js";
import type { BackendCounters } from "../backend.js";
import type { ExpertMatrices } from "../experts.js";
import type { Activation } from "../handles.js";
import { expertListOf } from "../hostExperts.js";
import {
  type PlacedExperts,
  type PlacedRows,
  packedRowsOf,
  partStarts,
  placedBytes,
  type ScatteredColumns,
  type ScatteredColumnsOptions,
  type ScatteredRows,
  type WeightArea,
} from "../weightArea.js";
import { own, type ReferenceMatrix, type ReferenceVector } from "./storage.js";

/** Columns of a product of which some groups were multiplied: what they stand for, f32 [rows of all parts, cols]. */
type Unfinished = { readonly weights: Float32Array };

export class ReferenceArea implements WeightArea {
  readonly #bytes: Uint8Array;
  readonly #unfinished = new WeakMap<ScatteredColumns, Unfinished>();

  constructor(
    readonly byteLength: number,
    readonly counters: () => BackendCounters,
    readonly onDispose: () => void,
  ) {
    this.#bytes = new Uint8Array(byteLength);
  }

  bytes(offset: number, byteLength: number): Uint8Array {
    if (!(offset >= 0 && byteLength >= 0 && offset + byteLength <= this.#bytes.byteLength)) {
      throw new UsageError(`bytes ${offset} to ${offset + byteLength} of an area of ${this.#bytes.byteLength}`);
    }
    return this.#bytes.subarray(offset, offset + byteLength);
  }

  place({ places }: ScatteredColumns, index: number, offset: number): void {
    this.#words(places, index + 1)[index] = offset;
  }

  linearColumns(out: Activation, x: Activation, columns: ScatteredColumns, options: ScatteredColumnsOptions): void {
    const { format, cols, parts, places, scales } = columns;
    const { thresholds, accumulate = false } = options;
    const values = own(x).row(0);
    const rows = packedRowsOf(parts);
    const groups = padded(cols) / groupSize;
    const { firstGroup = 0, endGroup = groups } = options;
    const { columnBytes, groupScaleBytes, byteLength, unpack } = weightFormats[format];
    if (firstGroup === 0) this.#unfinished.set(columns, { weights: new Float32Array(rows * cols) });
    const { weights } = this.#unfinished.get(columns)!;
    const kept = (part: number, i: number) => !(Math.abs(values[i]) <= Math.fround(thresholds[part]));
    const scaleBytes = groupScaleBytes(rows);
    const column = columnBytes(rows);
    for (let group = firstGroup; group < endGroup; group++) {
      const packed = new Uint8Array(byteLength(rows, groupSize));
      packed.set(this.bytes(scales + group * scaleBytes, scaleBytes));
      const inputs = Array.from({ length: groupSize }, (_, c) => group * groupSize + c).filter(
        (i) => i < cols && parts.some((_, p) => kept(p, i)),
      );
      for (const i of inputs) {
        const at = this.#words(places, i + 1)[i];
        packed.set(this.bytes(at, column), scaleBytes + (i % groupSize) * column);
      }
      const unpacked = unpack(packed, rows, groupSize);
      for (const i of inputs) {
        for (let r = 0; r < rows; r++) weights[r * cols + i] = unpacked[r * groupSize + (i % groupSize)];
      }
    }
    if (endGroup < groups) return;
    const target = own(out).row(0);
    const bias = (options.bias as ReferenceVector | undefined)?.values;
    let [packedStart, rowStart] = [0, 0];
    for (const [p, part] of parts.entries()) {
      const seen = values.map((value, i) => (kept(p, i) ? value : 0));
      for (let r = 0; r < part.rows; r++) {
        let sum = 0;
        for (let i = 0; i < cols; i++) sum += weights[(packedStart + r) * cols + i] * seen[i];
        if (bias !== undefined) sum += bias[rowStart + r];
        if (accumulate) sum += target[rowStart + r];
        target[rowStart + r] = sum;
      }
      const active = [...seen.keys()].filter((i) => kept(p, i));
      const touched = new Set(active.map((i) => Math.floor(i / groupSize)));
      const counters = this.counters();
      counters.weightBytesRead += active.length * columnBytes(part.rows) + touched.size * groupScaleBytes(part.rows);
      counters.inputs += cols;
      counters.inputsSkipped += cols - active.length;
      packedStart += padded(part.rows);
      rowStart += part.rows;
    }
  }

  linearRows(out: Activation, x: Activation, rows: ScatteredRows, threshold: number): void {
    const { offsets, outputs } = rows;
    for (const [i, offset] of offsets.entries()) this.#multiplyRow(out, outputs[i], x, rows, offset, threshold);
  }

  placeRow({ places }: PlacedRows, index: number, offset: number): void {
    this.#words(places, index + 1)[index] = offset;
  }

  linearOpenRows(out: Activation, x: Activation, gate: Activation, rows: PlacedRows, threshold: number): void {
    const places = this.#words(rows.places, rows.rows);
    own(out).row(0).fill(0);
    for (const [i, value] of own(gate).row(0).entries()) {
      if (!(value <= 0)) this.#multiplyRow(out, i, x, rows, places[i], threshold);
    }
  }

  #multiplyRow(
    out: Activation,
    output: number,
    x: Activation,
    { format, cols }: Pick<ScatteredRows, "format" | "cols">,
    offset: number,
    threshold: number,
  ): void {
    const bytes = rowBytes(format, cols);
    const row = unpackRow(format, this.bytes(offset, bytes).slice(), cols);
    let sum = 0;
    for (const [c, value] of own(x).row(0).entries())
      sum += Math.abs(value) <= Math.fround(threshold) ? 0 : row[c] * value;
    own(out).row(0)[output] = sum;
    this.counters().weightBytesRead += bytes;
  }

  experts({ experts, offsets, biases, ...shape }: PlacedExperts): ExpertMatrices {
    const { format, cols } = shape;
    const parts = partStarts(shape.parts);
    const packedRows = packedRowsOf(parts);
    const byteLength = placedBytes(shape);
    const rows = parts.reduce((sum, part) => sum + part.rows, 0);
    const matrices = new Map<number, ReferenceMatrix>();
    for (const [expert, offset] of offsets) {
      const values = weightFormats[format].unpack(this.bytes(offset, byteLength), packedRows, cols);
      const own = parts.map(({ packedStart, ...part }) => ({
        ...part,
        values: values.slice(packedStart * cols, (packedStart + part.rows) * cols),
      }));
      matrices.set(expert, { format, rows, cols, parts: own, byteLength });
    }
    return expertListOf(matrices, experts, biases);
  }

  [Symbol.dispose](): void {
    this.onDispose();
  }

  #words(offset: number, count: number): Uint32Array {
    return new Uint32Array(this.#bytes.buffer, this.#bytes.byteOffset + offset, count);
  }
}
