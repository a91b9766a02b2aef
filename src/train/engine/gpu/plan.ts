import type { BlockSpec, ModelConfig, NormSpec, RotateStep } from "../../../arch/index.js";
import type { ParameterInfo } from "../../values.js";

/** Rows of a matrix [rows, cols], or of several one below the other, and where they begin among all parameters. */
export interface Place {
  offset: number;
  rows: number;
  cols: number;
}

/** Where every parameter of a model lies in one array of f32. */
export interface Plan {
  /** Offset by name. */
  offsets: ReadonlyMap<string, number>;
  /** f32 in all. */
  length: number;
  embedding: Place;
}

/** Gives parameters their places, one after the other. */
export class Layout {
  readonly offsets = new Map<string, number>();
  length = 0;
  readonly #shapes: ReadonlyMap<string, readonly number[]>;

  constructor(parameters: readonly ParameterInfo[]) {
    this.#shapes = new Map(parameters.map(({ name, shape }) => [name, shape]));
  }

  /** Parameters one below the other; the rows end at a multiple of `rowUnit`. */
  place(names: readonly string[], rowUnit = 1): Place {
    const at: Place = { offset: this.length, rows: 0, cols: 0 };
    for (const name of names) {
      const [rows, cols = 1] = this.#shapes.get(name) ?? [0];
      this.offsets.set(name, at.offset + at.rows * cols);
      at.rows += rows;
      at.cols = cols;
    }
    at.rows = Math.ceil(at.rows / rowUnit) * rowUnit;
    this.length += at.rows * at.cols;
    return at;
  }

  /** Whether the parameters are those that were given places. */
  get isComplete(): boolean {
    return this.#shapes.size === this.offsets.size && [...this.#shapes.keys()].every((name) => this.offsets.has(name));
  }
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

export interface DecoderPlan extends Plan {
  blocks: readonly BlockPlan[];
  finalNorm: Place;
  /** The embedding itself where they are tied. */
  head: Place;
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
  const layout = new Layout(parameters);
  const place = (...names: string[]) => layout.place(names.map((name) => `${name}.weight`));
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
  if (!isPlain(config) || !layout.isComplete || sizes.some((size) => size % 4 !== 0)) return undefined;
  return { blocks, embedding, finalNorm, head, offsets: layout.offsets, length: layout.length };
}

/** The steps of a block that the hand-written step knows. */
const knownSteps = "norm linear rotate attend linear norm linear activate linear";

/** Whether a model is a Llama in all that its parameters do not tell. */
function isPlain({ spec, rope, headDim }: ModelConfig): boolean {
  const { embedding, blocks, finalNorm, head } = spec;
  const isRms = ({ kind, plusOne, epsilon }: NormSpec) => kind === "rms" && !plusOne && epsilon === finalNorm?.epsilon;
  const rotates = ({ rope: own, first, width, every, pairs }: RotateStep) =>
    JSON.stringify(own) === JSON.stringify(rope) && first === 0 && width === every && pairs === "halves";
  const isKnown = ({ steps }: BlockSpec) =>
    steps.map((step) => step.do).join(" ") === knownSteps &&
    steps.every((step) => {
      if (step.do === "norm") return isRms(step.norm);
      if (step.do === "rotate") return rotates(step);
      if (step.do === "activate") return step.f === "silu" && step.times !== undefined && step.clamped === undefined;
      if (step.do !== "attend") return true;
      const { scale, softcap, sinks, sight, kv } = step;
      const isUsual = Math.abs(scale * Math.sqrt(headDim) - 1) < 1e-9 && kv.k === headDim && kv.v === headDim;
      return isUsual && softcap === undefined && sinks === undefined && sight.kind !== "all";
    });
  return (
    embedding.scale === undefined &&
    finalNorm !== undefined &&
    isRms(finalNorm) &&
    head.kind === "vocabulary" &&
    head.softcap === undefined &&
    blocks.every(isKnown)
  );
}
