import type { ModelConfig } from "../../../io/index.js";
import type { ParameterInfo } from "../../values.js";

/** Rows of a matrix [rows, cols], or of several one below the other, and where they begin among all parameters. */
interface Place {
  offset: number;
  rows: number;
  cols: number;
}

export interface BlockPlan {
  inputNorm: Place;
  /** Query, key and value maps, one below the other. */
  qkv: Place;
  output: Place;
  mlpNorm: Place;
  /** Gate and up maps, one below the other. */
  gateUp: Place;
  down: Place;
  queryHeads: number;
  kvHeads: number;
  /** Positions a query sees, itself among them. */
  window: number;
}

/** Where every parameter of a decoder lies in one array of f32. */
export interface DecoderPlan {
  blocks: readonly BlockPlan[];
  embedding: Place;
  finalNorm: Place;
  /** The embedding itself where they are tied. */
  head: Place;
  /** Offset by name. */
  offsets: ReadonlyMap<string, number>;
  /** f32 in all. */
  length: number;
}

/**
 * Lays out a decoder for the hand-written step; maps that read the same input become neighbours, so that one product does for
 * both. @returns undefined for what the step does not do: biases, norms of heads, mixtures, activations but SiLU, sizes
 * that are not multiples of four
 */
export function planDecoder(
  config: ModelConfig,
  parameters: readonly ParameterInfo[],
  window: number,
): DecoderPlan | undefined {
  const infos = new Map(parameters.map((info) => [info.name, info]));
  const offsets = new Map<string, number>();
  let length = 0;
  const place = (...names: string[]): Place => {
    const at: Place = { offset: length, rows: 0, cols: 0 };
    for (const name of names) {
      const [rows, cols = 1] = infos.get(`${name}.weight`)?.shape ?? [0];
      offsets.set(`${name}.weight`, length);
      length += rows * cols;
      at.rows += rows;
      at.cols = cols;
    }
    return at;
  };
  const block = (layer: number): BlockPlan => {
    const at = `model.layers.${layer}`;
    const inputNorm = place(`${at}.input_layernorm`);
    const qkv = place(...["q_proj", "k_proj", "v_proj"].map((name) => `${at}.self_attn.${name}`));
    const output = place(`${at}.self_attn.o_proj`);
    const mlpNorm = place(`${at}.post_attention_layernorm`);
    const gateUp = place(`${at}.mlp.gate_proj`, `${at}.mlp.up_proj`);
    const down = place(`${at}.mlp.down_proj`);
    const { queryHeads, kvHeads } = config.blocks[layer];
    const seen = Math.min(config.slidingWindows[layer] ?? window, window);
    return { inputNorm, qkv, output, mlpNorm, gateUp, down, queryHeads, kvHeads, window: seen };
  };
  const embedding = place("model.embed_tokens");
  const blocks = Array.from({ length: config.layers }, (_, layer) => block(layer));
  const finalNorm = place("model.norm");
  const head = config.tiedEmbeddings ? embedding : place("lm_head");

  const sizes = [window, config.headDim, ...parameters.flatMap(({ shape }) => shape)];
  const everything = infos.size === offsets.size && [...infos.keys()].every((name) => offsets.has(name));
  if (config.activation !== "silu" || !everything || sizes.some((size) => size % 4 !== 0)) return undefined;
  return { blocks, embedding, finalNorm, head, offsets, length };
}
