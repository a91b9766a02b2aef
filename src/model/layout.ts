import {
  type BlockSpec,
  findStep,
  isTied,
  type LinearSpec,
  linearsOf,
  type ModelSpec,
  type Step,
  type TensorRef,
  tensorsOf,
} from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { TensorInfo } from "../tensor/index.js";
import type { Projection } from "./types.js";

/** The linear maps of an MLP, by the names of the checkpoint. */
export type MlpProjection = Extract<Projection, "gate_proj" | "up_proj" | "down_proj">;

/** Name and shape of a tensor that a checkpoint must hold. */
export interface ExpectedTensor {
  name: string;
  /** [out, in] of a matrix, [length] of a vector */
  shape: readonly number[];
}

/** The tensors that one linear map needs. */
export interface ExpectedLinear {
  /** The matrix as a whole; with `lowRank` it is stored only if there is a sparse residual to add to the pair. */
  weight: ExpectedTensor;
  /** W = left · right (+ weight): [out, rank] and [rank, in]. */
  lowRank?: { left: ExpectedTensor; right: ExpectedTensor; residual: boolean };
  bias?: ExpectedTensor;
}

/** The tensors that one decoder block needs, by what they do. */
export interface BlockLayout {
  /** [hiddenSize] */
  inputNorm: ExpectedTensor;
  /** Stacked: [queryHeads * headDim, hiddenSize] and twice [kvHeads * headDim, hiddenSize]. */
  qkv: readonly ExpectedLinear[];
  /** [headDim] each */
  headNorms?: { q: ExpectedTensor; k: ExpectedTensor };
  /** [hiddenSize, queryHeads * headDim] */
  output: ExpectedLinear;
  /** [hiddenSize] */
  mlpNorm: ExpectedTensor;
  /** One, or one for every expert. */
  mlps: readonly MlpLayout[];
  /** Which experts work for a token; left out where there is one MLP for all. */
  router?: RouterLayout;
}

/** The tensors of a gated MLP. */
export interface MlpLayout {
  /** Stacked: twice [intermediateSize, hiddenSize]. */
  gateUp: readonly ExpectedLinear[];
  /** [hiddenSize, intermediateSize] */
  down: ExpectedLinear;
}

/** The tensor that sends tokens to experts, and how. */
export interface RouterLayout {
  /** [experts, hiddenSize] */
  weight: ExpectedTensor;
  perToken: number;
  /** Whether the weights of the chosen experts are divided by their sum. */
  normalise: boolean;
}

/** Every tensor of a decoder by its role. */
export interface DecoderLayout {
  /** [vocabSize, hiddenSize] */
  embedding: ExpectedTensor;
  blocks: readonly BlockLayout[];
  /** [hiddenSize] */
  finalNorm: ExpectedTensor;
  /** [vocabSize, hiddenSize]; the embedding again when the two are tied. */
  head: ExpectedTensor;
}

/**
 * The tensors of a description by their role.
 * @param stored the tensors of the checkpoint, which tell where a pair of low rank takes the place of a matrix
 */
export function decoderLayout(spec: ModelSpec, stored: ReadonlyMap<string, TensorInfo> = new Map()): DecoderLayout {
  const expected = ({ tensor, shape }: TensorRef): ExpectedTensor => ({ name: tensor, shape });
  const linear = ({ weight, bias }: LinearSpec): ExpectedLinear => ({
    weight: expected(weight),
    lowRank: lowRankOf(weight, stored),
    ...(bias && { bias: expected(bias) }),
  });
  const fused = spec.blocks.flatMap(linearsOf).find(({ weight }) => weight.rows ?? weight.transposed ?? weight.stacked);
  if (fused !== undefined) throw cannotBeCompressed(spec, fused.weight.tensor);
  // A block is calibrated as if it were the first of its model.
  const unlike = spec.blocks.findIndex((block) => findStep(block, "rotate") === undefined);
  if (unlike >= 0) throw cannotBeCompressed(spec, `block ${unlike}, which rotates no positions`);
  const block = (block: BlockSpec): BlockLayout => {
    const attend = findStep(block, "attend")!;
    const [inputNorm, ...norms] = block.steps.flatMap((step) => (step.do === "norm" ? [step] : []));
    const weightOf = (buffer: string) => {
      const norm = norms.find((step) => step.of === buffer);
      return norm && expected(norm.norm.weight);
    };
    const [q, k] = [weightOf(attend.q), weightOf(attend.k)];
    const mixture = findStep(block, "mixture");
    const mlp = (steps: readonly Step[]): MlpLayout => {
      const maps = linearsOf({ steps });
      const named = (role: string) => maps.filter((map) => map.role === role).map(linear);
      return { gateUp: [...named("gate_proj"), ...named("up_proj")], down: named("down_proj")[0] };
    };
    const named = (role: string) =>
      linearsOf(block)
        .filter((map) => map.role === role)
        .map(linear);
    return {
      inputNorm: expected(inputNorm.norm.weight),
      qkv: ["q_proj", "k_proj", "v_proj"].flatMap(named),
      ...(q && k && { headNorms: { q, k } }),
      output: named("o_proj")[0],
      mlpNorm: weightOf("x")!,
      mlps: mixture === undefined ? [mlp(block.steps)] : mixture.experts.map(({ steps }) => mlp(steps)),
      ...(mixture && {
        router: {
          weight: expected(mixture.router.map.weight),
          perToken: mixture.router.perToken,
          normalise: mixture.router.normalise,
        },
      }),
    };
  };
  const embedding = expected(spec.embedding.table);
  const layout: DecoderLayout = {
    embedding,
    blocks: spec.blocks.map(block),
    finalNorm: expected(spec.finalNorm!.weight),
    head: isTied(spec) ? embedding : expected(spec.head.map.weight),
  };
  const told = new Set(layoutTensors(layout).map(({ name }) => name));
  const besides = tensorsOf(spec).find(
    ({ name }) => !told.has(name) && !stored.has(name.replace(/weight$/, "low_rank.left")),
  );
  if (besides !== undefined) throw cannotBeCompressed(spec, besides.name);
  return layout;
}

const cannotBeCompressed = ({ modelType }: ModelSpec, tensor: string) =>
  new UsageError(
    `models of the type ${modelType} run, but cannot be compressed yet: nothing is known of the role of ${tensor}`,
  );

function lowRankOf({ tensor, shape }: TensorRef, stored: ReadonlyMap<string, TensorInfo>): ExpectedLinear["lowRank"] {
  const name = tensor.replace(/\.weight$/, "");
  const right = stored.get(`${name}.low_rank.right`);
  if (right === undefined) return undefined;
  const [rank] = right.shape;
  return {
    left: { name: `${name}.low_rank.left`, shape: [shape[0], rank] },
    right: { name: right.name, shape: [rank, shape[1]] },
    residual: stored.has(tensor),
  };
}

/** The matrices that a linear map is stored as. */
export function storedMatrices({ weight, lowRank }: ExpectedLinear): ExpectedTensor[] {
  if (lowRank === undefined) return [weight];
  return [lowRank.left, lowRank.right, ...(lowRank.residual ? [weight] : [])];
}

/** The linear maps of a block. */
export const blockLinears = (block: BlockLayout): ExpectedLinear[] => [
  ...block.qkv,
  block.output,
  ...mlpLinears(block),
];

/** Those of its MLPs. */
export const mlpLinears = ({ mlps }: BlockLayout): ExpectedLinear[] =>
  mlps.flatMap(({ gateUp, down }) => [...gateUp, down]);

/** Every tensor of a layout once. */
export function layoutTensors(layout: DecoderLayout): ExpectedTensor[] {
  const ofLinear = (linear: ExpectedLinear) => [
    ...storedMatrices(linear),
    ...(linear.bias === undefined ? [] : [linear.bias]),
  ];
  const ofBlock = (block: BlockLayout) => [
    block.inputNorm,
    ...block.qkv.flatMap(ofLinear),
    ...(block.headNorms === undefined ? [] : [block.headNorms.q, block.headNorms.k]),
    ...ofLinear(block.output),
    block.mlpNorm,
    ...(block.router === undefined ? [] : [block.router.weight]),
    ...mlpLinears(block).flatMap(ofLinear),
  ];
  return [...new Set([layout.embedding, ...layout.blocks.flatMap(ofBlock), layout.finalNorm, layout.head])];
}
