import {
  type BlockShape,
  linearsOf,
  parseModelConfig,
  readModelSpec,
  type TensorRef,
  tensorsOfBlock,
} from "../arch/index.js";
import { FormatError } from "../core/index.js";
import { dtypeBytes, elementCount, toFloat32 } from "../tensor/index.js";
import { rowsOfShape } from "../tensor/internal.js";
import { checkFinite } from "./checkFinite.js";
import type { Checkpoint } from "./checkpoint.js";
import type { FloatDType } from "./encoding/index.js";
import { homeTensor, writeReference } from "./references.js";

/** A tensor of weights as numbers, read a few rows at a time: what every exporter starts from. */
export interface Weights {
  name: string;
  /** [rows, cols] of a matrix, [length] of a vector, of a stack with the number of matrices in front: their rows follow one another. */
  shape: readonly number[];
  /** The smallest type that is known to hold the values. */
  dtype: FloatDType;
  /** f32 [count, cols]; of a vector, `count` entries. */
  readRows(start: number, count: number): Promise<Float32Array>;
  /** Scales of grids of 32 entries, f32 [count, cols / 32], where the values lie on such. */
  readScales32?(start: number, count: number): Promise<Float32Array>;
}

const [leftSuffix, rightSuffix] = [".low_rank.left", ".low_rank.right"];

/** What older releases of transformers stored beside weights and now compute: positions, causal masks, rotary frequencies. */
const computed = /(?:^|\.)(?:position_ids|masked_bias|rotary_emb\.inv_freq|(?:attn|attention)\.bias)$/;

/**
 * The weights of a checkpoint as plain tensors under the names other tools know: encodings are decoded and low-rank pairs
 * multiplied out, with their sparse residual added; layers that share their weights have each their own. What is no weight is left out.
 * @throws FormatError for a tensor that is not of a float type, or a low-rank half without the other
 */
export async function plainWeights(checkpoint: Checkpoint): Promise<Weights[]> {
  const weights = new Map<string, Weights>();
  for (const name of checkpoint.tensors.keys()) {
    if (name.endsWith(rightSuffix) || computed.test(name)) continue;
    if (!name.endsWith(leftSuffix)) weights.set(name, stored(checkpoint, name));
  }
  for (const name of checkpoint.tensors.keys()) {
    if (!name.endsWith(leftSuffix)) continue;
    const stem = name.slice(0, -leftSuffix.length);
    const target = `${stem}.weight`;
    weights.set(target, product(checkpoint, stem, target, weights.get(target)));
  }
  if (checkpoint.artifact !== undefined) {
    putTogether(checkpoint, weights);
    giveEachItsOwn(checkpoint, weights);
  }
  return [...weights.values()];
}

/** Copies, under the names of their own, of what layers share with one before them. */
function giveEachItsOwn({ config, location, artifact }: Checkpoint, weights: Map<string, Weights>): void {
  const { blocks: shapes } = artifact!;
  if (shapes?.every(({ sharedWith }) => sharedWith === undefined) ?? true) return;
  const described = (blocks: readonly BlockShape[]) =>
    readModelSpec(config, `${location}/config.json`, undefined, blocks);
  const [shared, apart] = [described(shapes!), described(withOwnBlocks(shapes!))];
  for (const [layer, block] of apart.blocks.entries()) {
    const sources = tensorsOfBlock(shared.blocks[layer]);
    for (const [t, { tensor: name }] of tensorsOfBlock(block).entries()) {
      const source = weights.get(sources[t].tensor);
      if (source !== undefined && source.name !== name) weights.set(name, { ...source, name });
    }
  }
}

/** The same blocks, of which none shares its weights. */
export const withOwnBlocks = (shapes: readonly BlockShape[]): BlockShape[] =>
  shapes.map(({ sharedWith: _, ...shape }) => shape);

/** Maps that lie alone because one of them was stored as factors, in the tensor that they share elsewhere. */
function putTogether(checkpoint: Checkpoint, weights: Map<string, Weights>): void {
  const file = `${checkpoint.location}/config.json`;
  const { spec } = parseModelConfig(checkpoint.config, file, undefined, checkpoint.artifact?.blocks);
  const apart = new Map<string, { ref: TensorRef; own: Weights }[]>();
  for (const map of spec.blocks.flatMap((block) => linearsOf(block))) {
    const home = homeTensor(map);
    const own = weights.get(home);
    if (home === map.weight.tensor || own === undefined) continue;
    apart.set(map.weight.tensor, [...(apart.get(map.weight.tensor) ?? []), { ref: map.weight, own }]);
    weights.delete(home);
  }
  for (const [name, parts] of apart) weights.set(name, joined(name, parts));
}

function joined(name: string, parts: readonly { ref: TensorRef; own: Weights }[]): Weights {
  const [{ ref, own }] = parts;
  const { cols } = rowsOfShape(ref.shape);
  let values: Promise<Float32Array> | undefined;
  const readAll = async () => {
    const all = new Float32Array(elementCount(ref.shape));
    for (const part of parts) writeReference(all, part.ref, await part.own.readRows(0, part.own.shape[0]));
    return all;
  };
  return {
    name,
    shape: ref.shape,
    dtype: parts.every((part) => part.own.dtype === own.dtype) ? own.dtype : "F32",
    async readRows(start, count) {
      values ??= readAll();
      const rows = (await values).slice(start * cols, (start + count) * cols);
      // Read from the first row to the last: what was held is let go.
      if (start + count >= ref.shape[0]) values = undefined;
      return rows;
    },
  };
}

function stored(checkpoint: Checkpoint, name: string): Weights {
  const tensor = checkpoint.tensors.get(name)!;
  const { dtype, shape, grid } = tensor;
  if (dtype !== "F32" && dtype !== "BF16" && dtype !== "F16") {
    throw new FormatError({
      file: checkpoint.location,
      field: name,
      problem: `${dtype} weights`,
      expected: "F32, BF16 or F16",
    });
  }
  const { cols } = rowsOfShape(shape);
  const rowBytes = cols * dtypeBytes[dtype];
  const fits = grid?.symmetric === true && grid.groupSize % 32 === 0 && cols % 32 === 0;
  return {
    name,
    shape,
    dtype,
    async readRows(start, count) {
      const bytes = await checkpoint.read(name, start * rowBytes, count * rowBytes);
      checkFinite(checkpoint.location, tensor, bytes, start * cols);
      return toFloat32(dtype, bytes);
    },
    ...(fits && {
      async readScales32(start: number, count: number) {
        const scales = await checkpoint.readScales(name, start, count);
        const perRow = Math.ceil(cols / grid.groupSize);
        const blocks = cols / 32;
        return Float32Array.from({ length: count * blocks }, (_, i) => {
          const group = Math.floor(((i % blocks) * 32) / grid.groupSize);
          return scales[Math.floor(i / blocks) * perRow + group];
        });
      },
    }),
  };
}

/** W = left · right (+ residual), in f64 sums. */
function product(checkpoint: Checkpoint, stem: string, name: string, residual: Weights | undefined): Weights {
  const left = stored(checkpoint, stem + leftSuffix);
  if (!checkpoint.tensors.has(stem + rightSuffix)) {
    throw new FormatError({
      file: checkpoint.location,
      field: stem + rightSuffix,
      problem: "it is missing",
      expected: `the other half of ${left.name}`,
    });
  }
  const right = stored(checkpoint, stem + rightSuffix);
  const [rank, cols] = right.shape;
  let rightValues: Promise<Float32Array> | undefined;
  return {
    name,
    shape: [left.shape[0], cols],
    dtype: "F32",
    async readRows(start, count) {
      rightValues ??= right.readRows(0, rank);
      const [a, b] = [await left.readRows(start, count), await rightValues];
      const rest = await residual?.readRows(start, count);
      const out = new Float32Array(count * cols);
      const row = new Float64Array(cols);
      for (let r = 0; r < count; r++) {
        row.fill(0);
        for (let k = 0; k < rank; k++) {
          const factor = a[r * rank + k];
          for (let c = 0; c < cols; c++) row[c] += factor * b[k * cols + c];
        }
        for (let c = 0; c < cols; c++) out[r * cols + c] = row[c] + (rest?.[r * cols + c] ?? 0);
      }
      return out;
    },
  };
}
