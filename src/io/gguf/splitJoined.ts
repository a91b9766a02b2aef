import type { GgufFamily, JoinedTensor, ModelConfig } from "../../arch/index.js";
import { elementCount } from "../../tensor/index.js";
import { unitRows } from "../unitRows.js";
import type { Weights } from "../weights.js";
import { placeOf } from "./architectures.js";
import { allRows, forEachNumber } from "./joined.js";

/** What a tensor of the checkpoint is joined of; undefined for one that a file has whole. */
export function joinedOf({ joined, names }: GgufFamily, name: string): JoinedTensor | undefined {
  const [layer, inBlock] = placeOf(names, name);
  return layer === undefined ? undefined : joined?.find(({ tensor }) => tensor === inBlock);
}

/** The parts that a file has in the place of a tensor of the checkpoint, under their names there; undefined for one that it has whole. */
export function partsOfJoined(family: GgufFamily, weights: Weights, config: ModelConfig): Weights[] | undefined {
  const joined = joinedOf(family, weights.name);
  if (joined === undefined) return undefined;
  const [layer] = placeOf(family.names, weights.name);
  const { unit, shapes } = layoutOf(joined, weights.shape, config);
  const storedRows = (allRows(unit) * unit.cols) / weights.shape.at(-1)!;
  return joined.parts.map((part, p) => {
    const [, ...shape] = shapes[p];
    const width = shape.at(-1)!;
    const rows = elementCount(shape) / width;
    const readUnit = async (u: number) => {
      const values = await weights.readRows(u * storedRows, storedRows);
      const out = new Float32Array(rows * width);
      forEachNumber(unit, (of, inPart, at) => {
        if (of === p) out[inPart] = values[at];
      });
      return out;
    };
    return {
      name: `blk.${layer}.${part}`,
      dtype: weights.dtype,
      shape: shapes[p],
      readRows: unitRows(rows, width, readUnit),
    };
  });
}

/** What a unit is, and the shapes of the parts. */
function layoutOf({ units: kind, parts, sizes }: JoinedTensor, shape: readonly number[], config: ModelConfig) {
  if (kind === "experts") {
    const [units, ...rest] = shape;
    const total = rest.at(-1)!;
    const cols = rest.length === 1 ? 1 : rest[0];
    const rows = total / parts.length;
    const partShape = rest.length === 1 ? [units, rows] : [units, rows, cols];
    return { unit: { kind, rows: parts.map(() => rows), cols }, shapes: parts.map(() => partShape) };
  }
  const { heads, rows } = sizes!(config);
  const [, cols] = shape;
  const shapes = rows.map((count, p) => (p === 0 ? [heads, cols, count] : [heads, count, cols]));
  return { unit: { kind, rows, cols }, shapes };
}
