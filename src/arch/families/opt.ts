import * as z from "zod/mini";
import {
  activation,
  fail,
  flag,
  heads,
  maxLayers,
  optional,
  orElse,
  positions,
  size,
  tokenFields,
  width,
  withTokens,
} from "../configFields.js";
import { family } from "../family.js";
import { grouped, layerNorm, linearMap, plain, postNorm, preNorm, stored } from "../parts.js";
import type { BlockShape } from "../spec.js";

const config = z.pipe(
  z.object({
    vocab_size: orElse(size(2 ** 24), 50272),
    hidden_size: orElse(size(2 ** 17), 768),
    num_hidden_layers: orElse(size(maxLayers), 12),
    num_attention_heads: orElse(heads, 12),
    ffn_dim: orElse(width, 3072),
    max_position_embeddings: orElse(positions, 2048),
    activation_function: activation("relu"),
    do_layer_norm_before: flag(true),
    _remove_final_layer_norm: flag(false),
    enable_bias: flag(true),
    layer_norm_elementwise_affine: orElse(z.literal(true), true),
    word_embed_proj_dim: optional(width),
    tie_word_embeddings: flag(true),
    ...tokenFields,
  }),
  z.transform((raw, context) => {
    if (raw.hidden_size % raw.num_attention_heads !== 0) {
      const expected = `a multiple of num_attention_heads, ${raw.num_attention_heads}`;
      fail(context, ["hidden_size"], `size ${raw.hidden_size}`, expected);
    }
    const projected = raw.word_embed_proj_dim ?? raw.hidden_size;
    if (projected !== raw.hidden_size) {
      fail(
        context,
        ["word_embed_proj_dim"],
        `embeddings of ${projected} columns are not supported`,
        `${raw.hidden_size}`,
      );
    }
    return withTokens(raw, { bos: 2, eos: [2] });
  }),
);

/** Rows of the table of positions before that of position 0. */
const offset = 2;

/** OPT (arXiv 2205.01068): GPT-3's shape, with ReLU. */
export const opt = family({
  modelType: "opt",
  config,
  spec(c, shapes) {
    const { hidden_size: hiddenSize, vocab_size: vocabSize, num_attention_heads: queryHeads, enable_bias: bias } = c;
    const shape: BlockShape = { queryHeads, kvHeads: queryHeads, intermediateSize: c.ffn_dim };
    const headDim = hiddenSize / queryHeads;
    const norm = (name: string) => layerNorm(name, hiddenSize, 1e-5);
    const decoder = "model.decoder";
    const table = { tensor: `${decoder}.embed_tokens.weight`, shape: [vocabSize, hiddenSize] };
    const learned = [c.max_position_embeddings + offset, hiddenSize];
    const head = linearMap("lm_head", vocabSize, hiddenSize, stored("lm_head"));
    const wired = c.do_layer_norm_before ? preNorm : postNorm;
    return {
      hiddenSize,
      vocabSize,
      maxPositions: c.max_position_embeddings,
      bosTokenId: c.bos_token_id,
      eosTokenIds: c.eos_token_id,
      embedding: {
        table,
        positions: { table: { tensor: `${decoder}.embed_positions.weight`, shape: learned }, offset },
      },
      blocks: Array.from({ length: c.num_hidden_layers }, (_, layer) => {
        const at = `${decoder}.layers.${layer}`;
        const { queryHeads, kvHeads, intermediateSize } = shapes?.[layer] ?? shape;
        const map = (name: string) => stored(`${at}.${name}`, bias);
        return wired(
          [norm(`${at}.self_attn_layer_norm`), norm(`${at}.final_layer_norm`)],
          grouped(
            { hiddenSize, queryHeads, kvHeads, headDim },
            {
              q: map("self_attn.q_proj"),
              k: map("self_attn.k_proj"),
              v: map("self_attn.v_proj"),
              o: map("self_attn.out_proj"),
            },
            { sight: { kind: "causal" } },
          ),
          plain({ hiddenSize, intermediateSize }, { up: map("fc1"), down: map("fc2") }, { f: c.activation_function }),
        );
      }),
      ...(c.do_layer_norm_before && !c._remove_final_layer_norm && { finalNorm: norm(`${decoder}.final_layer_norm`) }),
      head: { kind: "vocabulary", map: c.tie_word_embeddings ? { ...head, weight: table } : head },
    };
  },
});
