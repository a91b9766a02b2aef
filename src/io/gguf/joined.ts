import type { GgufFamily, JoinedTensor } from "../../arch/index.js";
import { FormatError } from "../../core/index.js";
import { toFloat32 } from "../../tensor/index.js";
import type { EncodedTensor } from "../encoding/index.js";
import { unitRows } from "../unitRows.js";
import type { PartTensor } from "./parts.js";

/** A matrix of one unit, an expert or a head, [rows, cols], as a checkpoint and the parts of a file hold it. */
export interface Unit {
  kind: JoinedTensor["units"];
  /** Of each part. */
  rows: readonly number[];
  cols: number;
}

export const allRows = ({ rows }: Unit): number => rows.reduce((sum, count) => sum + count, 0);

/** Calls for every number of a unit: which part it lies in and where there, and where in the checkpoint's unit. */
export function forEachNumber(unit: Unit, visit: (part: number, inPart: number, inWhole: number) => void): void {
  const { kind, rows, cols } = unit;
  const total = allRows(unit);
  let first = 0;
  for (const [part, count] of rows.entries()) {
    for (let r = 0; r < count; r++) {
      for (let c = 0; c < cols; c++) {
        if (kind === "experts") visit(part, r * cols + c, c * total + r * rows.length + part);
        else visit(part, part === 0 ? c * count + r : r * cols + c, (first + r) * cols + c);
      }
    }
    first += count;
  }
}

/** More than any known model has. */
const maxUnits = 4096;

/**
 * Takes the parts of joined tensors out of those of a file.
 * @param open a part as [rows, cols] under a name of its own
 * @returns what they make up, under the names of the checkpoint
 * @throws FormatError for parts that are missing or do not fit each other
 */
export function joinedTensors(
  family: GgufFamily,
  tensors: ReadonlyMap<string, PartTensor>,
  open: (tensor: PartTensor, shape: readonly [rows: number, cols: number]) => EncodedTensor,
): { encoded: EncodedTensor[]; used: Set<string> } {
  const encoded: EncodedTensor[] = [];
  const used = new Set<string>();
  for (const joined of family.joined ?? []) {
    const [first] = joined.parts;
    for (const name of tensors.keys()) {
      const [, layer, end] = /^blk\.(\d{1,5})\.(.+)$/.exec(name) ?? [];
      if (end !== first) continue;
      const parts = joined.parts.map((part) => {
        const found = tensors.get(`blk.${layer}.${part}`);
        if (found !== undefined) return found;
        const { source } = tensors.get(name)!;
        const problem = `it is there without blk.${layer}.${part}`;
        throw new FormatError({ file: source.name, field: name, problem });
      });
      for (const part of parts) used.add(part.name);
      encoded.push(join(joined, `${family.names.layers}.${layer}.${joined.tensor}`, parts, open));
    }
  }
  return { encoded, used };
}

function join(
  joined: JoinedTensor,
  name: string,
  parts: readonly PartTensor[],
  open: (tensor: PartTensor, shape: readonly [rows: number, cols: number]) => EncodedTensor,
): EncodedTensor {
  const isBias = joined.units === "experts" && parts[0].shape.length === 2;
  const [units] = parts[0].shape;
  const sizes = parts.map(({ shape }, part) => {
    const [, a, b = 1] = shape;
    return joined.units === "heads" && part === 0 ? { rows: b, cols: a } : { rows: a, cols: b };
  });
  const [{ cols, rows: some }] = sizes;
  for (const [part, { name: field, shape, source }] of parts.entries()) {
    const fits =
      shape.length === (isBias ? 2 : 3) &&
      shape[0] === units &&
      units <= maxUnits &&
      sizes[part].cols === cols &&
      (joined.units === "heads" || sizes[part].rows === some);
    if (fits) continue;
    const problem = `shape [${shape.join(", ")}] beside ${parts[0].name}, [${parts[0].shape.join(", ")}]`;
    throw new FormatError({ file: source.name, field, problem, expected: "parts of the same units" });
  }
  const unit: Unit = { kind: joined.units, rows: sizes.map(({ rows }) => rows), cols };
  const total = allRows(unit);
  const opened = parts.map((part) => {
    const [, a, b] = part.shape;
    // A bias has one row for each unit.
    const [perUnit, width] = isBias ? [1, a] : [a, b];
    const { info, readRows } = open(part, [units * perUnit, width]);
    return async (u: number) => toFloat32(info.dtype, await readRows(u * perUnit, perUnit));
  });
  const readUnit = async (u: number) => {
    const out = new Float32Array(total * cols);
    const values = await Promise.all(opened.map((read) => read(u)));
    forEachNumber(unit, (part, inPart, inWhole) => {
      out[inWhole] = values[part][inPart];
    });
    return out;
  };
  const [rows, width] = joined.units === "experts" ? [cols, total] : [total, cols];
  const read = unitRows(rows, width, readUnit);
  const ofExperts = isBias ? [units, total] : [units, cols, total];
  return {
    info: {
      name,
      dtype: "F32",
      shape: joined.units === "experts" ? ofExperts : [units * total, cols],
      encoding: parts[0].type.name,
      storedBytes: parts.reduce((sum, { byteLength }) => sum + byteLength, 0),
    },
    readRows: async (start, count) => new Uint8Array((await read(start, count)).buffer),
  };
}
