import type { ExpertsConfig, ModelConfig } from "../io/index.js";
import type { TensorInfo } from "../tensor/index.js";
import type { Projection } from "./types.js";

/** What tells one Llama-like decoder from another; windows, heads and functions are in the config. */
export interface DecoderTraits {
  /** Bias vectors on q, k and v. */
  qkvBias: boolean;
  /** A bias vector on the output projection of attention. */
  outputBias: boolean;
  /** Bias vectors on gate, up and down. */
  mlpBias: boolean;
  /** An RMS norm on every head of q and of k, before the rotation. */
  qkNorm: boolean;
  /** Of a model whose MLPs are mixtures of experts. */
  experts?: ExpertTraits;
}

/** How a family of mixtures names its tensors, within a layer and without `.weight`, and what it does with the weights. */
export interface ExpertTraits {
  router: string;
  linear(expert: number, projection: MlpProjection): string;
  /** Whether the weights of the chosen experts are divided by their sum. */
  normalise: boolean;
}

export type MlpProjection = Extract<Projection, "gate_proj" | "up_proj" | "down_proj">;

/** Name and shape of a tensor that a checkpoint must hold. */
export interface ExpectedTensor {
  name: string;
  /** [out, in] of a matrix, [length] of a vector */
  shape: readonly number[];
}

export interface ExpectedLinear {
  /** The matrix as a whole; with `lowRank` it is stored only if there is a sparse residual to add to the pair. */
  weight: ExpectedTensor;
  /** W = left · right (+ weight): [out, rank] and [rank, in]. */
  lowRank?: { left: ExpectedTensor; right: ExpectedTensor; residual: boolean };
  bias?: ExpectedTensor;
}

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

export interface MlpLayout {
  /** Stacked: twice [intermediateSize, hiddenSize]. */
  gateUp: readonly ExpectedLinear[];
  /** [hiddenSize, intermediateSize] */
  down: ExpectedLinear;
}

export interface RouterLayout {
  /** [experts, hiddenSize] */
  weight: ExpectedTensor;
  perToken: number;
  /** See `ExpertTraits`. */
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
 * The names and shapes of Hugging Face's Llama and its relatives.
 * @param stored the tensors of the checkpoint, which tell where a pair of low rank takes the place of a matrix
 */
export function decoderLayout(
  config: ModelConfig,
  traits: DecoderTraits,
  stored: ReadonlyMap<string, TensorInfo> = new Map(),
): DecoderLayout {
  const { hiddenSize, vocabSize } = config;

  const block = (layer: number): BlockLayout => {
    const prefix = `model.layers.${layer}`;
    const { queryHeads, kvHeads, intermediateSize } = config.blocks[layer];
    const queryWidth = queryHeads * config.headDim;
    const kvWidth = kvHeads * config.headDim;
    const norm = (name: string, length = hiddenSize) => ({ name: `${prefix}.${name}.weight`, shape: [length] });
    const linear = (module: string, name: Projection, rows: number, cols: number, bias: boolean): ExpectedLinear => ({
      weight: { name: `${prefix}.${module}.${name}.weight`, shape: [rows, cols] },
      lowRank: lowRankOf(`${prefix}.${module}.${name}`, rows, cols, stored),
      ...(bias && { bias: { name: `${prefix}.${module}.${name}.bias`, shape: [rows] } }),
    });
    const { qkvBias, outputBias, mlpBias, qkNorm, experts } = traits;
    const dense: MlpLayout = {
      gateUp: [
        linear("mlp", "gate_proj", intermediateSize, hiddenSize, mlpBias),
        linear("mlp", "up_proj", intermediateSize, hiddenSize, mlpBias),
      ],
      down: linear("mlp", "down_proj", hiddenSize, intermediateSize, mlpBias),
    };
    const mixture = ({ router, linear, normalise }: ExpertTraits, { count, perToken }: ExpertsConfig) => {
      const matrix = (expert: number, projection: MlpProjection, rows: number, cols: number): ExpectedLinear => ({
        weight: { name: `${prefix}.${linear(expert, projection)}.weight`, shape: [rows, cols] },
      });
      const mlp = (expert: number): MlpLayout => ({
        gateUp: [
          matrix(expert, "gate_proj", intermediateSize, hiddenSize),
          matrix(expert, "up_proj", intermediateSize, hiddenSize),
        ],
        down: matrix(expert, "down_proj", hiddenSize, intermediateSize),
      });
      const weight = { name: `${prefix}.${router}.weight`, shape: [count, hiddenSize] };
      return { mlps: Array.from({ length: count }, (_, e) => mlp(e)), router: { weight, perToken, normalise } };
    };
    return {
      inputNorm: norm("input_layernorm"),
      qkv: [
        linear("self_attn", "q_proj", queryWidth, hiddenSize, qkvBias),
        linear("self_attn", "k_proj", kvWidth, hiddenSize, qkvBias),
        linear("self_attn", "v_proj", kvWidth, hiddenSize, qkvBias),
      ],
      ...(qkNorm && {
        headNorms: { q: norm("self_attn.q_norm", config.headDim), k: norm("self_attn.k_norm", config.headDim) },
      }),
      output: linear("self_attn", "o_proj", hiddenSize, queryWidth, outputBias),
      mlpNorm: norm("post_attention_layernorm"),
      ...(experts && config.experts ? mixture(experts, config.experts) : { mlps: [dense] }),
    };
  };

  const embedding = { name: "model.embed_tokens.weight", shape: [vocabSize, hiddenSize] };
  return {
    embedding,
    blocks: Array.from({ length: config.layers }, (_, layer) => block(layer)),
    finalNorm: { name: "model.norm.weight", shape: [hiddenSize] },
    head: config.tiedEmbeddings ? embedding : { name: "lm_head.weight", shape: [vocabSize, hiddenSize] },
  };
}

function lowRankOf(
  name: string,
  rows: number,
  cols: number,
  stored: ReadonlyMap<string, TensorInfo>,
): ExpectedLinear["lowRank"] {
  const right = stored.get(`${name}.low_rank.right`);
  if (right === undefined) return undefined;
  const [rank] = right.shape;
  return {
    left: { name: `${name}.low_rank.left`, shape: [rows, rank] },
    right: { name: right.name, shape: [rank, cols] },
    residual: stored.has(`${name}.weight`),
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
