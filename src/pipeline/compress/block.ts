import type { ModelConfig } from "../../arch/index.js";
import type { LowRankFactors } from "../../compress/index.js";
import { productOf } from "../../compress/index.js";
import { FormatError } from "../../core/index.js";
import type { Checkpoint, FloatDType, GridCodes } from "../../io/index.js";
import {
  type DecoderDescription,
  type MlpProjection,
  type Projection,
  projections,
  type TapSite,
  tapSites,
} from "../../model/index.js";

/** A matrix of a block: its projection, in a mixture of experts with the number of the expert. */
export type MatrixKey = Projection | `experts.${number}.${MlpProjection}`;

/** What enters matrices: what is at a site, in a mixture of experts the share of it that an expert sees. */
export type InputKey = TapSite | `experts.${number}.${TapSite}`;

export const inputKey = (site: TapSite, expert: number | undefined): InputKey =>
  expert === undefined ? site : `experts.${expert}.${site}`;

/** One matrix of a block while stages work on it. */
export interface BlockMatrix {
  /** The tensor in the source. */
  readonly name: string;
  readonly key: MatrixKey;
  readonly projection: Projection;
  /** The expert that it belongs to, in a mixture of experts. */
  readonly expert: number | undefined;
  readonly biasName: string | undefined;
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
  /** [experts, hiddenSize] of a router */
  readonly shape?: readonly number[];
  readonly dtype: FloatDType;
  folded: boolean;
}

/** Sizes that structured pruning changes. */
export type BlockSizes = ModelConfig["blocks"][number];

/** A decoder block in memory, by the names of the source. */
export interface DecoderBlock {
  /** Its layer in the source. */
  readonly layer: number;
  readonly sizes: BlockSizes;
  readonly matrices: ReadonlyMap<MatrixKey, BlockMatrix>;
  readonly vectors: ReadonlyMap<string, BlockVector>;
  readonly roles: DecoderDescription["layout"]["blocks"][number];
}

type BlockRoles = DecoderBlock["roles"];

/** The matrices of a block in the order of the model, and which each is. */
export function matrixPlaces({ qkv, output, mlps, router }: BlockRoles) {
  const attention = [...qkv, output];
  const ofMlps = mlps.flatMap(({ gateUp, down }, e) =>
    [...gateUp, down].map((linear, p) => {
      const projection = projections[attention.length + p] as MlpProjection;
      const expert = router === undefined ? undefined : e;
      const key: MatrixKey = expert === undefined ? projection : `experts.${expert}.${projection}`;
      return { linear, projection, expert, key };
    }),
  );
  return [
    ...attention.map((linear, p) => ({ linear, projection: projections[p], expert: undefined, key: projections[p] })),
    ...ofMlps,
  ];
}

/** What a recipe may call a matrix. */
export const roleName = (
  layer: number,
  { key, projection, expert, linear }: ReturnType<typeof matrixPlaces>[number],
) =>
  expert === undefined || linear.weight.name.endsWith(`.${projection}.weight`)
    ? linear.weight.name
    : `model.layers.${layer}.mlp.${key}.weight`;

/** A place of a block that matrices read from. */
export interface BlockInput {
  readonly site: TapSite;
  /** What is known of what enters, in as many parts as differ: of every expert by itself where experts share a norm. */
  readonly keys: readonly InputKey[];
  /** The expert that has it for itself. */
  readonly expert: number | undefined;
  readonly readers: readonly BlockMatrix[];
}

/** In the order in which a block comes to them. */
export function blockInputs({ matrices }: Pick<DecoderBlock, "matrices">): BlockInput[] {
  const inputs: BlockInput[] = [];
  for (const site of Object.keys(tapSites) as TapSite[]) {
    const projectionsOf: readonly Projection[] = tapSites[site];
    const readers = [...matrices.values()].filter(({ projection }) => projectionsOf.includes(projection));
    if (readers.length === 0) continue;
    const experts = [...new Set(readers.map(({ expert }) => expert))];
    const keys = experts.map((expert) => inputKey(site, expert));
    if (site !== "mlpHidden") inputs.push({ site, keys, expert: undefined, readers });
    else {
      for (const [e, expert] of experts.entries())
        inputs.push({ site, keys: [keys[e]], expert, readers: readers.filter((matrix) => matrix.expert === expert) });
    }
  }
  return inputs;
}

/** Names of the two factors that take the place of a matrix, W = left · right (+ the matrix, if it is there too). */
export const factorNames = (name: string) => {
  const stem = name.replace(/\.weight$/, "");
  return { left: `${stem}.low_rank.left`, right: `${stem}.low_rank.right` };
};

/** Above this share of zeros a matrix of the source counts as pruned, and stays so. */
const alreadySparse = 0.05;

/** A block that a job has written, as layer `layer` of its result. */
export interface StoredBlock {
  layer: number;
  sizes: BlockSizes;
  /** By `MatrixKey`. */
  matrices: Readonly<Record<string, { rows: number; cols: number; rank?: number }>>;
}

/**
 * Reads a block whole.
 * @param stored read it back from the result, where names and shapes may differ; the block has the names of the source
 * @throws FormatError
 */
export async function loadBlock(
  checkpoint: Checkpoint,
  { config, layout }: DecoderDescription,
  layer: number,
  stored?: StoredBlock,
): Promise<DecoderBlock> {
  const roles = layout.blocks[layer];
  const at = (name: string) =>
    stored === undefined ? name : name.replace(`model.layers.${layer}.`, `model.layers.${stored.layer}.`);
  const vectors = new Map<string, BlockVector>();
  const loadVector = async (name: string, shape?: readonly number[]) => {
    const values = await checkpoint.readFloat32(at(name));
    vectors.set(name, { values, ...(shape && { shape }), dtype: floatDType(checkpoint, at(name)), folded: false });
  };
  for (const { name } of [roles.inputNorm, roles.mlpNorm]) await loadVector(name);
  if (roles.headNorms !== undefined) for (const { name } of Object.values(roles.headNorms)) await loadVector(name);

  if (roles.router !== undefined) await loadVector(roles.router.weight.name, roles.router.weight.shape);

  const matrices = new Map<MatrixKey, BlockMatrix>();
  for (const { linear, ...place } of matrixPlaces(roles)) {
    const { weight, bias } = linear;
    if (bias !== undefined) await loadVector(bias.name);
    const [sourceRows, sourceCols] = weight.shape;
    const { rows, cols, rank } = stored?.matrices[place.key] ?? { rows: sourceRows, cols: sourceCols };
    const factors = factorNames(at(weight.name));
    const isThere = rank === undefined || checkpoint.tensors.has(at(weight.name));
    const values = isThere ? await checkpoint.readFloat32(at(weight.name)) : new Float32Array(rows * cols);
    let zeros = 0;
    for (const value of values) if (value === 0) zeros++;
    matrices.set(place.key, {
      name: weight.name,
      ...place,
      biasName: bias?.name,
      dtype: floatDType(checkpoint, isThere ? at(weight.name) : factors.left),
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
  return { layer, sizes: { ...(stored?.sizes ?? config.blocks[layer]) }, matrices, vectors, roles };
}

function floatDType(checkpoint: Checkpoint, name: string): FloatDType {
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
