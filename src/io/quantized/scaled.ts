import { dtypeBytes } from "../../tensor/index.js";
import type { EncodedTensor, TensorGrid } from "../encoding/index.js";
import type { MatrixParts } from "./matrixParts.js";

/** Numbers of some rows, read where they are wanted. */
export type ReadNumbers = (start: number, count: number) => Promise<Float32Array>;

/** A matrix whose values are scale · (number − zero), where `groupSize` consecutive entries of a row share scale and zero. */
export interface ScaledMatrix {
  shape: readonly [rows: number, cols: number];
  /** How it lies in the file, in words. */
  encoding: string;
  groupSize: number;
  /** number − zero is an integer of so many bits, from −2^(bits − 1) on; left out where it is not, or takes more than 8. */
  bits?: number;
  scaleDType?: TensorGrid["scaleDType"];
  /** f32 [count, cols] */
  numbers: ReadNumbers;
  /** f32 [count, ⌈cols / groupSize⌉] */
  scales: ReadNumbers;
  /** As the scales; left out where all are 0. */
  zeros?: ReadNumbers;
  /** The group of each entry of a row, where those of a group are no neighbours. */
  groupOf?: () => Promise<ArrayLike<number>>;
}

/**
 * The matrix as a model knows it, under the name that its parts share: f32, each value rounded once. Integers keep their grid,
 * so that formats in memory can take the codes over.
 */
export function scaledTensor(matrix: ScaledMatrix, parts: MatrixParts, name = `${parts.stem}.weight`): EncodedTensor {
  const { shape, encoding, bits, scaleDType = "F32" } = matrix;
  const [, cols] = shape;
  const groupSize = Math.min(matrix.groupSize, cols);
  const groups = Math.ceil(cols / groupSize);
  const onGrid = bits !== undefined && matrix.groupOf === undefined;
  return {
    info: {
      name,
      dtype: "F32",
      shape,
      encoding,
      storedBytes: parts.storedBytes,
      ...(onGrid && { grid: { bits, groupSize, symmetric: true, scaleDType } }),
    },
    async readRows(start, count) {
      const values = await matrix.numbers(start, count);
      const scales = await matrix.scales(start, count);
      const zeros = (await matrix.zeros?.(start, count)) ?? new Float32Array(count * groups);
      const groupOf = await matrix.groupOf?.();
      for (let r = 0; r < count; r++) {
        const first = r * groups;
        for (let c = 0, at = r * cols; c < cols; c++, at++) {
          const group = first + (groupOf === undefined ? (c / groupSize) | 0 : groupOf[c]);
          values[at] = (values[at] - zeros[group]) * scales[group];
        }
      }
      return new Uint8Array(values.buffer, values.byteOffset, count * cols * dtypeBytes.F32);
    },
    ...(onGrid && { readScales: (start: number, count: number) => matrix.scales(start, count) }),
  };
}

/**
 * The group of each input, read once.
 * @param suffix of the part that says it
 * @param size entries of a group where groups follow one another; undefined where they may lie anywhere
 * @throws FormatError for a group that is none, or lies elsewhere
 */
export function groupsOf(
  parts: MatrixParts,
  suffix: string,
  groups: number,
  size?: number,
): () => Promise<ArrayLike<number>> {
  let read: Promise<Float32Array> | undefined;
  return () => {
    read ??= parts.numbers(suffix).then((order) => {
      for (const [input, group] of order.entries()) {
        const fits = size === undefined ? group >= 0 && group < groups : group === Math.floor(input / size);
        if (fits) continue;
        const expected = size === undefined ? `0 to ${groups - 1}` : `${Math.floor(input / size)}, without desc_act`;
        throw parts.fail(`its part ${suffix} has group ${group} for input ${input}`, expected);
      }
      return order;
    });
    return read;
  };
}

/** Rows [start, start + count) of f32 [groups, rows], turned: f32 [count, groups]. */
export function turnedColumns(values: ArrayLike<number>, rows: number, start: number, count: number): Float32Array {
  const groups = values.length / rows;
  return Float32Array.from(
    { length: count * groups },
    (_, i) => values[(i % groups) * rows + start + Math.floor(i / groups)],
  );
}

/** The numbers of tiles of [tileRows, tileCols] entries, one for each, read where they are wanted. */
export function tiled(
  [rows, cols]: readonly [number, number],
  [tileRows, tileCols]: readonly [number, number],
  read: (first: number, count: number) => Promise<Float32Array>,
): ReadNumbers {
  const groups = Math.ceil(cols / tileCols);
  return async (start, count) => {
    const first = Math.floor(start / tileRows);
    const end = Math.min(Math.ceil(rows / tileRows), Math.ceil((start + count) / tileRows));
    const stored = await read(first * groups, (end - first) * groups);
    if (tileRows === 1) return stored;
    const out = new Float32Array(count * groups);
    for (let r = 0; r < count; r++) {
      const from = (Math.floor((start + r) / tileRows) - first) * groups;
      out.set(stored.subarray(from, from + groups), r * groups);
    }
    return out;
  };
}
