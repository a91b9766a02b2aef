import * as z from "zod/mini";
import type { GateFunction } from "../core/index.js";
import * as field from "./configFields.js";
import type { RopeSpec } from "./ropes/index.js";

/** The config of a Llama-like decoder under the names of the file, with every default filled in. */
export interface DecoderConfig {
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  num_key_value_heads: number;
  head_dim: number;
  max_position_embeddings: number;
  rms_norm_eps: number;
  hidden_act: GateFunction;
  tie_word_embeddings: boolean;
  layer_types?: readonly ("full_attention" | "sliding_attention")[];
  rope: RopeSpec;
  /** Rotated columns of a head, an even number. */
  rotaryWidth: number;
  bos_token_id?: number;
  eos_token_id: readonly number[];
}

/** Where the configuration class of a family in transformers fills in something else than most do. */
export interface DecoderDefaults {
  /** Where `num_key_value_heads` is left out; by default one per query head, as where it is null. */
  kvHeads?: number;
  /** Where `head_dim` is left out or null; by default `hidden_size / num_attention_heads`. */
  headDim?: number;
  maxPositions: number;
  epsilon?: number;
  bos?: number;
  eos?: readonly number[];
  tied?: boolean;
  theta?: number;
  activation?: "silu" | "gelu_pytorch_tanh";
  /** The config may rotate a part of each head. */
  partialRotation?: true;
}

const shared = ({ maxPositions, epsilon = 1e-6, tied = false, activation = "silu" }: DecoderDefaults) => ({
  vocab_size: field.size(2 ** 24),
  hidden_size: field.size(2 ** 17),
  intermediate_size: field.width,
  num_hidden_layers: field.size(field.maxLayers),
  num_attention_heads: field.heads,
  num_key_value_heads: z.nullish(field.heads),
  head_dim: field.optional(field.heads),
  max_position_embeddings: field.orElse(field.positions, maxPositions),
  rms_norm_eps: field.epsilon(epsilon),
  hidden_act: field.gateFunction(activation),
  tie_word_embeddings: field.flag(tied),
  layer_types: field.layerTypes,
  ...field.tokenFields,
  ...field.ropeFields,
});

type Shared = z.output<z.ZodMiniObject<ReturnType<typeof shared>>>;

/**
 * The schema of the config.json of a Llama-like decoder.
 * @param own the fields that only this family has
 */
export function decoderConfig<S extends z.core.$ZodShape>(
  defaults: DecoderDefaults,
  own: S,
): z.core.$ZodType<DecoderConfig & z.output<z.ZodMiniObject<S>>> {
  return z.pipe(
    z.object({ ...shared(defaults), ...own }),
    z.transform((raw, context) => ({
      ...(raw as unknown as z.output<z.ZodMiniObject<S>>),
      ...resolve(raw as unknown as Shared, defaults, context),
    })),
  );
}

/** What follows from several fields together. */
function resolve(raw: Shared, defaults: DecoderDefaults, context: z.core.ParsePayload): DecoderConfig {
  const fail = (name: string, problem: string, expected: string) => field.fail(context, [name], problem, expected);
  const queryHeads = raw.num_attention_heads;
  const given = raw.num_key_value_heads;
  const kvHeads = (given === undefined ? defaults.kvHeads : given) ?? queryHeads;
  if (queryHeads % kvHeads !== 0) {
    fail("num_key_value_heads", `${kvHeads} for ${queryHeads} query heads`, "a divisor of num_attention_heads");
  }
  const headDim = raw.head_dim ?? defaults.headDim ?? raw.hidden_size / queryHeads;
  if (!Number.isInteger(headDim)) {
    fail("hidden_size", `size ${raw.hidden_size}`, `a multiple of num_attention_heads, ${queryHeads}`);
  } else if (headDim % 2 !== 0) {
    fail("head_dim", `size ${headDim}`, "an even size, for the rotary embedding");
  }
  const read = field.readRope(raw, context, { theta: defaults.theta });
  if (read !== undefined && read.share !== 1 && defaults.partialRotation === undefined) {
    fail("partial_rotary_factor", "rotary embedding of a part of each head is not supported", "1");
  }
  const rotaryWidth = headDim % 2 === 0 ? field.rotatedWidth(read, headDim, context) : headDim;
  const layers = raw.num_hidden_layers;
  if (raw.layer_types !== undefined && raw.layer_types.length !== layers) {
    fail("layer_types", `${raw.layer_types.length} entries`, `${layers}, one per layer`);
  }
  const { bos_token_id, eos_token_id, ...rest } = raw;
  return {
    ...rest,
    num_key_value_heads: kvHeads,
    head_dim: headDim,
    rope: read?.rope as RopeSpec,
    rotaryWidth,
    ...field.tokens({ bos_token_id, eos_token_id, vocab_size: raw.vocab_size }, defaults),
  };
}
