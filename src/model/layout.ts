import type { ModelConfig } from "../io/index.js";
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
}

/** Name and shape of a tensor that a checkpoint must hold. */
export interface ExpectedTensor {
  name: string;
  /** [out, in] of a matrix, [length] of a vector */
  shape: readonly number[];
}

export interface ExpectedLinear {
  weight: ExpectedTensor;
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
  /** Stacked: twice [intermediateSize, hiddenSize]. */
  gateUp: readonly ExpectedLinear[];
  /** [hiddenSize, intermediateSize] */
  down: ExpectedLinear;
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

/** The names and shapes of Hugging Face's Llama and its relatives. */
export function decoderLayout(config: ModelConfig, traits: DecoderTraits): DecoderLayout {
  const { hiddenSize, intermediateSize, vocabSize } = config;
  const queryWidth = config.queryHeads * config.headDim;
  const kvWidth = config.kvHeads * config.headDim;

  const block = (layer: number): BlockLayout => {
    const prefix = `model.layers.${layer}`;
    const norm = (name: string, length = hiddenSize) => ({ name: `${prefix}.${name}.weight`, shape: [length] });
    const linear = (module: string, name: Projection, rows: number, cols: number, bias: boolean): ExpectedLinear => ({
      weight: { name: `${prefix}.${module}.${name}.weight`, shape: [rows, cols] },
      ...(bias && { bias: { name: `${prefix}.${module}.${name}.bias`, shape: [rows] } }),
    });
    const { qkvBias, outputBias, mlpBias, qkNorm } = traits;
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
      gateUp: [
        linear("mlp", "gate_proj", intermediateSize, hiddenSize, mlpBias),
        linear("mlp", "up_proj", intermediateSize, hiddenSize, mlpBias),
      ],
      down: linear("mlp", "down_proj", hiddenSize, intermediateSize, mlpBias),
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

/** Every tensor of a layout once. */
export function layoutTensors(layout: DecoderLayout): ExpectedTensor[] {
  const ofLinear = ({ weight, bias }: ExpectedLinear) => (bias === undefined ? [weight] : [weight, bias]);
  const ofBlock = (block: BlockLayout) => [
    block.inputNorm,
    ...block.qkv.flatMap(ofLinear),
    ...(block.headNorms === undefined ? [] : [block.headNorms.q, block.headNorms.k]),
    ...ofLinear(block.output),
    block.mlpNorm,
    ...block.gateUp.flatMap(ofLinear),
    ...ofLinear(block.down),
  ];
  return [...new Set([layout.embedding, ...layout.blocks.flatMap(ofBlock), layout.finalNorm, layout.head])];
}
