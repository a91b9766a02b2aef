import { type BlockSpec, type ModelConfig, type TensorRef, tensorsOfBlock } from "../../arch/index.js";
import { inputsOf, type Place, placesOf } from "../../arch/internal.js";
import type { FittedFactors, LowRankFactors } from "../../compress/index.js";
import { productOf } from "../../compress/internal.js";
import { FormatError } from "../../core/index.js";
import type { Checkpoint, FloatDType, GridCodes } from "../../io/index.js";
import { homeTensor, readReference } from "../../io/internal.js";
import { directRef, factorNames } from "../../model/internal.js";

/** What enters matrices: what is at a site, in a mixture of experts the share of it that an expert sees. */
export type InputKey = string;

export const inputKey = (site: string, expert: number | undefined): InputKey =>
  expert === undefined ? site : `experts.${expert}.${site}`;

/** One matrix of a block while stages work on it. */
export interface BlockMatrix {
  /** Its id in the block. */
  readonly key: string;
  /** Where it stands in the block of the source. */
  readonly place: Place;
  /** Type of its values in the source. */
  readonly dtype: FloatDType;
  rows: number;
  cols: number;
  /** f32 [rows, cols]; with `lowRank`, what is added to the product of the factors. */
  weight: Float32Array;
  /** u8 [rows, cols], 1 = keep: zeros that later stages must leave. */
  mask?: Uint8Array;
  /** The codes that `weight` stands for, once quantised. */
  grid?: GridCodes;
  lowRank?: LowRankFactors;
  /** What `weight` is the product of, once it is stored as factors. */
  factors?: FittedFactors;
  /** Factors were folded into it, which is exact in f32 only. */
  folded: boolean;
  /** Calibration tokens that its expert saw; undefined outside of experts and without calibration. */
  tokens?: number;
  /** Sum over the stages of the squared relative error of its output on the calibration inputs; undefined: not measured. */
  squaredError?: number;
}

/** A norm or a bias, or the router of a mixture of experts. */
export interface BlockVector {
  values: Float32Array;
  readonly dtype: FloatDType;
  folded: boolean;
}

/** Sizes that structured pruning changes. */
export type BlockSizes = ModelConfig["blocks"][number];

/** A decoder block in memory. */
export interface DecoderBlock {
  /** Its layer in the source. */
  readonly layer: number;
  /** As it is in the source, whatever stages have made of its sizes. */
  readonly spec: BlockSpec;
  readonly sizes: BlockSizes;
  /** By id. */
  readonly matrices: ReadonlyMap<string, BlockMatrix>;
  /** What is no matrix, by where it lies in the source. */
  readonly vectors: ReadonlyMap<TensorRef, BlockVector>;
}

/** The references of a block that are no matrices: norms, biases, routers. */
export function vectorsOf(block: BlockSpec): TensorRef[] {
  const matrices = new Set(placesOf(block).map(({ map }) => map.weight));
  return tensorsOfBlock(block).filter((ref) => !matrices.has(ref));
}

/** A matrix of the model, whatever block it is in. */
export const matrixKey = (layer: number, id: string): string => `${layer}.${id}`;

/** What people call a matrix: its role in Llama's words and its tensor; the tensor first where that says the role. */
export function matrixNames(layer: number, { map, module }: Place): string[] {
  const role = `model.layers.${layer}.${module}.${map.id}.weight`;
  const { tensor } = map.weight;
  return [...new Set(tensor.endsWith(`.${map.role}.weight`) ? [tensor, role] : [role, tensor])];
}

/** A place of a block that matrices read from. */
export interface MatrixInput extends Omit<ReturnType<typeof inputsOf>[number], "readers"> {
  /** What is known of what enters, in as many parts as differ: of every expert by itself where experts share a norm. */
  readonly keys: readonly InputKey[];
  readonly readers: readonly BlockMatrix[];
}

/** In the order in which a block comes to them. */
export const blockInputs = ({ spec, matrices }: Pick<DecoderBlock, "spec" | "matrices">): MatrixInput[] =>
  inputsOf(spec).map(({ readers, ...input }) => ({
    ...input,
    keys: [...new Set(readers.map(({ step, expert }) => inputKey(step.site.id, expert)))],
    readers: readers.map(({ map }) => matrices.get(map.id)!),
  }));

/** Above this share of zeros a matrix of the source counts as pruned, and stays so. */
const alreadySparse = 0.05;

/** A block that a job has written, as it lies in the result. */
export interface StoredBlock {
  spec: BlockSpec;
  sizes: BlockSizes;
  /** By id. */
  matrices: Readonly<Record<string, { rows: number; cols: number; rank?: number }>>;
}

/**
 * Reads a block whole.
 * @param stored read it back from the result, where names and shapes may differ
 * @throws FormatError
 */
export async function loadBlock(
  checkpoint: Checkpoint,
  config: ModelConfig,
  layer: number,
  stored?: StoredBlock,
): Promise<DecoderBlock> {
  const spec = config.spec.blocks[layer];
  const lies = stored?.spec ?? spec;
  const shared = new Map<string, Float32Array>();
  const vectors = new Map<TensorRef, BlockVector>();
  const refs = vectorsOf(lies);
  for (const [v, ref] of vectorsOf(spec).entries()) {
    const values = await readReference(checkpoint, refs[v], shared);
    vectors.set(ref, { values, dtype: floatDType(checkpoint, refs[v].tensor), folded: false });
  }
  const matrices = new Map<string, BlockMatrix>();
  const places = placesOf(lies);
  for (const [p, place] of placesOf(spec).entries()) {
    const { map } = places[p];
    const home = homeTensor(map);
    const { rows, cols, rank = undefined } = stored?.matrices[map.id] ?? { rows: map.rows, cols: map.cols };
    const factors = factorNames(home);
    const isThere = rank === undefined || checkpoint.tensors.has(home);
    const direct = directRef(map, checkpoint.tensors);
    const values = isThere ? await readReference(checkpoint, direct, shared) : new Float32Array(rows * cols);
    let zeros = 0;
    for (const value of values) if (value === 0) zeros++;
    matrices.set(map.id, {
      key: map.id,
      place,
      dtype: floatDType(checkpoint, isThere ? direct.tensor : factors.left),
      rows,
      cols,
      weight: values,
      ...(zeros > alreadySparse * values.length && { mask: Uint8Array.from(values, (value) => (value === 0 ? 0 : 1)) }),
      ...(rank !== undefined && {
        lowRank: {
          rank,
          left: await checkpoint.readFloat32(factors.left),
          right: await checkpoint.readFloat32(factors.right),
        },
      }),
      folded: false,
    });
  }
  return { layer, spec, sizes: { ...(stored?.sizes ?? config.blocks[layer]) }, matrices, vectors };
}

export function floatDType(checkpoint: Checkpoint, name: string): FloatDType {
  const dtype = checkpoint.tensors.get(name)?.dtype;
  if (dtype === "F32" || dtype === "BF16" || dtype === "F16") return dtype;
  throw new FormatError({
    file: checkpoint.location,
    field: name,
    problem: dtype === undefined ? "no such tensor" : `dtype ${dtype}`,
    expected: "F32, BF16 or F16",
    hint: "Low-rank models cannot be compressed again; take the model they were made from",
  });
}

/** f32 [rows, cols]: what the matrix multiplies with, factors included. */
export function effectiveWeight({ rows, cols, weight, lowRank }: BlockMatrix): Float32Array {
  if (lowRank === undefined) return weight;
  const product = productOf({ rows, cols }, lowRank);
  for (let i = 0; i < product.length; i++) product[i] += weight[i];
  return product;
}
