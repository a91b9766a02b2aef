import * as z from "zod/mini";
import * as field from "../configFields.js";
import { family } from "../family.js";
import { grouped, interleaved, layerNorm, linearMap, parallel, plain, preNorm, stored } from "../parts.js";
import type { RopeSpec } from "../ropes/index.js";
import type { BlockShape } from "../spec.js";

const config = z.pipe(
  z.object({
    vocab_size: field.orElse(field.size(2 ** 24), 50432),
    hidden_size: field.orElse(field.size(2 ** 17), 6144),
    num_hidden_layers: field.orElse(field.size(field.maxLayers), 44),
    num_attention_heads: field.orElse(field.heads, 64),
    intermediate_size: field.orElse(field.width, 24576),
    max_position_embeddings: field.orElse(field.positions, 2048),
    hidden_act: field.activation("gelu"),
    layer_norm_eps: field.epsilon(1e-5),
    attention_bias: field.flag(true),
    use_parallel_residual: field.flag(true),
    tie_word_embeddings: field.flag(false),
    // As transformers before 5 spells them.
    rotary_emb_base: field.ropeFields.rope_theta,
    rotary_pct: field.ropeFields.partial_rotary_factor,
    ...field.tokenFields,
    ...field.ropeFields,
  }),
  z.transform((raw, context) => {
    const headDim = raw.hidden_size / raw.num_attention_heads;
    if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
      const expected = `an even multiple of num_attention_heads, ${raw.num_attention_heads}`;
      field.fail(context, ["hidden_size"], `size ${raw.hidden_size}`, expected);
    }
    const defaults = { theta: raw.rotary_emb_base ?? undefined, share: raw.rotary_pct ?? 0.25 };
    const read = field.readRope(raw, context, defaults);
    const rotation = { rope: read?.rope as RopeSpec, width: field.rotatedWidth(read, headDim, context) };
    return { ...field.withTokens(raw, { bos: 0, eos: [2] }), headDim, rotation };
  }),
);

/** GPT-NeoX and Pythia (arXiv 2204.06745, 2304.01373): attention and MLP side by side, q, k and v of a head in one run of rows. */
export const gptNeox = family({
  modelType: "gpt_neox",
  config,
  spec(c, shapes) {
    const { hidden_size: hiddenSize, vocab_size: vocabSize, num_attention_heads: queryHeads, headDim } = c;
    const shape: BlockShape = { queryHeads, kvHeads: queryHeads, intermediateSize: c.intermediate_size };
    const norm = (name: string) => layerNorm(name, hiddenSize, c.layer_norm_eps);
    const table = { tensor: "gpt_neox.embed_in.weight", shape: [vocabSize, hiddenSize] };
    const head = linearMap("lm_head", vocabSize, hiddenSize, stored("embed_out"));
    const wired = c.use_parallel_residual ? parallel : preNorm;
    return {
      hiddenSize,
      vocabSize,
      maxPositions: c.max_position_embeddings,
      bosTokenId: c.bos_token_id,
      eosTokenIds: c.eos_token_id,
      embedding: { table },
      blocks: Array.from({ length: c.num_hidden_layers }, (_, layer) => {
        const at = `gpt_neox.layers.${layer}`;
        const { queryHeads, kvHeads, intermediateSize } = shapes?.[layer] ?? shape;
        const attention = (name: string) => stored(`${at}.attention.${name}`, c.attention_bias);
        const [q, k, v] = interleaved(attention("query_key_value"), 3, headDim, queryHeads);
        return wired(
          [norm(`${at}.input_layernorm`), norm(`${at}.post_attention_layernorm`)],
          grouped(
            { hiddenSize, queryHeads, kvHeads, headDim },
            { q, k, v, o: attention("dense") },
            { sight: { kind: "causal" }, rotation: c.rotation },
          ),
          plain(
            { hiddenSize, intermediateSize },
            { up: stored(`${at}.mlp.dense_h_to_4h`, true), down: stored(`${at}.mlp.dense_4h_to_h`, true) },
            { f: c.hidden_act },
          ),
        );
      }),
      finalNorm: norm("gpt_neox.final_layer_norm"),
      head: { kind: "vocabulary", map: c.tie_word_embeddings ? { ...head, weight: table } : head },
    };
  },
  gguf: {
    architecture: "gptneox",
    activation: "gelu",
    ownFields: true,
    config: ({ required, number, flag, headDim }) => ({
      hidden_size: required("embedding_length"),
      num_hidden_layers: required("block_count"),
      num_attention_heads: required("attention.head_count"),
      intermediate_size: required("feed_forward_length"),
      max_position_embeddings: required("context_length"),
      layer_norm_eps: required("attention.layer_norm_epsilon"),
      use_parallel_residual: flag("use_parallel_residual") ?? true,
      rotary_emb_base: number("rope.freq_base") ?? 10_000,
      rotary_pct: (number("rope.dimension_count") ?? headDim) / headDim,
    }),
    keys: ({ spec }) => ({ use_parallel_residual: spec.blocks[0].steps[1].do === "norm" }),
    problem: ({ attentionBias }) => (attentionBias ? undefined : "llama.cpp expects biases of attention"),
    perHead: { end: "attn_qkv", maps: 3 },
    names: {
      layers: "gpt_neox.layers",
      outside: [
        ["token_embd", "gpt_neox.embed_in"],
        ["output_norm", "gpt_neox.final_layer_norm"],
        ["output", "embed_out"],
      ],
      inBlock: [
        ["attn_norm", "input_layernorm"],
        ["attn_qkv", "attention.query_key_value"],
        ["attn_output", "attention.dense"],
        ["ffn_norm", "post_attention_layernorm"],
        ["ffn_up", "mlp.dense_h_to_4h"],
        ["ffn_down", "mlp.dense_4h_to_h"],
      ],
    },
  },
});
