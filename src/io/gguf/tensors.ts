import { families, type GgufFamily, type ModelConfig } from "../../arch/index.js";
import { FormatError } from "../../core/index.js";
import { dtypeBytes, f32FromF16, toFloat32 } from "../../tensor/index.js";
import type { ByteSource } from "../byteSource.js";
import type { EncodedTensor } from "../encoding/index.js";
import type { PlacedTensor } from "../placeTensors.js";
import { checkpointName, expertNames, isNorm, isTurned, perHeadOf } from "./architectures.js";
import type { GgufTensor } from "./header.js";
import { joinedTensors } from "./joined.js";
import type { GgufParts, PartTensor } from "./parts.js";
import { ropeTensorNames } from "./ropeFactors.js";
import { reorderRows } from "./rotaryRows.js";
import { type PerHead, readReordered, readTurned, runInFile } from "./rowOrders.js";

/** The tensors of a GGUF file under the names and in the row order of a Hugging Face checkpoint. */
export interface GgufTensors {
  placed: Map<string, PlacedTensor>;
  encoded: Map<string, EncodedTensor>;
}

/**
 * @param config of the model; rows of q and k are reordered within heads where the architecture needs it
 * @throws FormatError
 */
export function openGgufTensors(
  { tensors }: GgufParts,
  { modelType, headDim }: Pick<ModelConfig, "modelType" | "headDim">,
): GgufTensors {
  const family = families[modelType].gguf;
  const placed = new Map<string, PlacedTensor>();
  const encoded = new Map<string, EncodedTensor>();
  const open = (tensor: PartTensor, shape: readonly number[]) =>
    openBlocks(tensor.source, tensor.name, { ...tensor, shape }, undefined);
  const joined = family && joinedTensors(family, tensors, open);
  for (const tensor of joined?.encoded ?? []) encoded.set(tensor.info.name, tensor);
  const others = Array.from(tensors.values()).filter(({ name }) => !joined?.used.has(name));
  for (const [name, tensor] of namedTensors(family, others)) {
    const { source } = tensor;
    const rotary = family?.rotaryNeighbours === true && /^blk\.\d+\.attn_[qk]\.(?:weight|bias)$/.test(tensor.name);
    const fail = (problem: string, expected: string) =>
      new FormatError({ file: source.name, field: tensor.name, problem, expected });
    if (rotary && tensor.shape[0] % headDim !== 0) throw fail(`${tensor.shape[0]} rows`, `heads of ${headDim}`);
    if (tensor.type.decode !== undefined && tensor.shape.length !== 2) {
      throw fail(`${tensor.type.name} with shape [${tensor.shape.join(", ")}]`, "a matrix");
    }
    const isShifted = family?.plusOneNorms === true && isNorm(tensor.name);
    if (isShifted && tensor.type.dtype !== "F32") throw fail(tensor.type.name, "F32");
    const perHead = family && perHeadOf(family, tensor.name, tensor.shape[0], headDim);
    if (perHead !== undefined && !Number.isInteger(perHead.heads)) {
      throw fail(`${tensor.shape[0]} rows`, `${perHead.maps} maps of heads of ${headDim}`);
    }
    const turns = family !== undefined && isTurned(family, tensor.name);
    if (turns && tensor.shape.length !== 2) throw fail(`shape [${tensor.shape.join(", ")}]`, "a matrix");
    if (tensor.type.dtype !== undefined && !rotary && !isShifted && perHead === undefined && !turns) {
      const { shape, byteOffset, byteLength } = tensor;
      placed.set(name, { source, tensor: { name, dtype: tensor.type.dtype, shape, byteOffset, byteLength } });
    } else {
      const opened = openBlocks(source, name, tensor, rotary ? headDim : undefined);
      encoded.set(name, arranged(opened, { isShifted, turns, perHead }));
    }
  }
  return { placed, encoded };
}

/** More than any known model has. */
const maxExperts = 4096;

/** The tensors of a file under the names of a checkpoint; of a stack of experts, the matrix of each. */
function* namedTensors(
  family: GgufFamily | undefined,
  tensors: Iterable<PartTensor>,
): Generator<[name: string, tensor: PartTensor]> {
  for (const tensor of tensors) {
    const nameOf = family && expertNames(family, tensor.name);
    if (Object.values(ropeTensorNames).includes(tensor.name)) continue;
    if (nameOf === undefined) {
      yield [(family && checkpointName(family, tensor.name)) ?? tensor.name, tensor];
      continue;
    }
    const [experts, ...shape] = tensor.shape;
    if (shape.length !== 2 || experts > maxExperts) {
      const problem = `a stack with shape [${tensor.shape.join(", ")}]`;
      const [file, expected] = [tensor.source.name, `[experts, rows, cols], at most ${maxExperts} experts`];
      throw new FormatError({ file, field: tensor.name, problem, expected });
    }
    const byteLength = tensor.byteLength / experts;
    for (let expert = 0; expert < experts; expert++) {
      const byteOffset = tensor.byteOffset + expert * byteLength;
      yield [nameOf(expert), { ...tensor, shape, byteOffset, byteLength }];
    }
  }
}

/** A tensor of a file as the checkpoint has it. */
function arranged(
  tensor: EncodedTensor,
  { isShifted, turns, perHead }: { isShifted: boolean; turns: boolean; perHead?: PerHead },
): EncodedTensor {
  if (isShifted) return lessOne(tensor);
  if (turns) return turnedTensor(tensor);
  return perHead === undefined ? tensor : togetherByHead(tensor, perHead);
}

function turnedTensor({ info, readRows }: EncodedTensor): EncodedTensor {
  const { grid: _, ...kept } = info;
  const [rows, cols] = info.shape;
  const whole = async () => toFloat32(info.dtype, await readRows(0, rows));
  const read = readTurned(whole, rows, cols);
  return {
    info: { ...kept, dtype: "F32", shape: [cols, rows] },
    readRows: async (start, count) => new Uint8Array((await read(start, count)).buffer),
  };
}

function togetherByHead({ info, readRows, readScales }: EncodedTensor, order: PerHead): EncodedTensor {
  const place = (run: number) => runInFile(order, run);
  return {
    info,
    readRows: async (start, count) => {
      const pieces = await readReordered(order, place, readRows, start, count);
      const out = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
      let at = 0;
      for (const piece of pieces) {
        out.set(piece, at);
        at += piece.length;
      }
      return out;
    },
    ...(readScales && {
      readScales: async (start: number, count: number) => {
        const pieces = await readReordered(order, place, readScales, start, count);
        return Float32Array.from(pieces.flatMap((piece) => [...piece]));
      },
    }),
  };
}

/** f32 values, each less 1. */
const lessOne = (tensor: EncodedTensor): EncodedTensor => ({
  ...tensor,
  async readRows(start, count) {
    const bytes = (await tensor.readRows(start, count)).slice();
    const values = new Float32Array(bytes.buffer);
    for (const [i, value] of values.entries()) values[i] = value - 1;
    return bytes;
  },
});

/** @param rotaryHeadDim heads of rows in the order of neighbours; undefined leaves rows where they are */
function openBlocks(
  source: ByteSource,
  name: string,
  { type, shape, byteOffset, byteLength }: GgufTensor,
  rotaryHeadDim: number | undefined,
): EncodedTensor {
  const [rows] = shape;
  const dtype = type.dtype ?? "F32";
  const storedRowBytes = byteLength / rows;
  const cols = (storedRowBytes / type.blockBytes) * type.blockSize;

  /** Stored rows, in the order of the checkpoint. */
  const readStored = async (start: number, count: number): Promise<Uint8Array> => {
    if (rotaryHeadDim === undefined) return source.read(byteOffset + start * storedRowBytes, count * storedRowBytes);
    const first = start - (start % rotaryHeadDim);
    const end = Math.ceil((start + count) / rotaryHeadDim) * rotaryHeadDim;
    const bytes = await source.read(byteOffset + first * storedRowBytes, (end - first) * storedRowBytes);
    const ordered = reorderRows(bytes, storedRowBytes, rotaryHeadDim, "toHalves");
    return ordered.subarray((start - first) * storedRowBytes, (start - first + count) * storedRowBytes);
  };
  return {
    info: { name, dtype, shape, encoding: type.name, storedBytes: byteLength, ...(type.grid && { grid: type.grid }) },
    async readRows(start, count) {
      const bytes = await readStored(start, count);
      if (type.decode === undefined) return bytes;
      const out = new Uint8Array(count * cols * dtypeBytes.F32);
      const values = new Float32Array(out.buffer);
      for (let at = 0, to = 0; at < bytes.byteLength; at += type.blockBytes, to += type.blockSize) {
        type.decode(bytes, at, values, to);
      }
      return out;
    },
    ...(type.grid && {
      async readScales(start: number, count: number) {
        const bytes = await readStored(start, count);
        return Float32Array.from({ length: bytes.byteLength / type.blockBytes }, (_, block) =>
          f32FromF16(bytes[block * type.blockBytes] | (bytes[block * type.blockBytes + 1] << 8)),
        );
      },
    }),
  };
}
