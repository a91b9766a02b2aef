import * as z from "zod/mini";
import {
  activation,
  epsilon,
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
import { findStep } from "../derive.js";
import { family } from "../family.js";
import { grouped, layerNorm, linearMap, plain, preNorm, stacked, stored, transposed } from "../parts.js";
import type { BlockShape } from "../spec.js";

const config = z.pipe(
  z.object({
    vocab_size: orElse(size(2 ** 24), 50257),
    n_embd: orElse(size(2 ** 17), 768),
    n_layer: orElse(size(maxLayers), 12),
    n_head: orElse(heads, 12),
    n_inner: optional(width),
    n_positions: orElse(positions, 1024),
    activation_function: activation("gelu_new"),
    layer_norm_epsilon: epsilon(1e-5),
    tie_word_embeddings: flag(true),
    scale_attn_weights: flag(true),
    scale_attn_by_inverse_layer_idx: flag(false),
    ...tokenFields,
  }),
  z.transform((raw, context) => {
    if (raw.n_embd % raw.n_head !== 0) {
      fail(context, ["n_embd"], `size ${raw.n_embd}`, `a multiple of n_head, ${raw.n_head}`);
    }
    return withTokens(raw, { bos: 50256, eos: [50256] });
  }),
);

/** GPT-2 (Radford et al. 2019): learned positions, layer norms, an MLP without a gate, matrices stored [in, out]. */
export const gpt2 = family({
  modelType: "gpt2",
  config,
  ignored: [
    // Of heads that are not run, and how scores are summed up.
    ..."n_ctx reorder_and_upcast_attn summary_type summary_use_proj summary_activation".split(" "),
    ..."summary_proj_to_labels summary_first_dropout".split(" "),
  ],
  spec(c, shapes) {
    const { n_embd: hiddenSize, vocab_size: vocabSize, n_head: queryHeads } = c;
    const shape: BlockShape = { queryHeads, kvHeads: queryHeads, intermediateSize: c.n_inner ?? 4 * hiddenSize };
    const headDim = hiddenSize / queryHeads;
    const norm = (name: string) => layerNorm(name, hiddenSize, c.layer_norm_epsilon);
    const table = { tensor: "transformer.wte.weight", shape: [vocabSize, hiddenSize] };
    const head = linearMap("lm_head", vocabSize, hiddenSize, stored("lm_head"));
    return {
      hiddenSize,
      vocabSize,
      maxPositions: c.n_positions,
      bosTokenId: c.bos_token_id,
      eosTokenIds: c.eos_token_id,
      embedding: {
        table,
        positions: { table: { tensor: "transformer.wpe.weight", shape: [c.n_positions, hiddenSize] }, offset: 0 },
      },
      blocks: Array.from({ length: c.n_layer }, (_, layer) => {
        const at = `transformer.h.${layer}`;
        const { queryHeads, kvHeads, intermediateSize } = shapes?.[layer] ?? shape;
        const [wide, narrow] = [queryHeads * headDim, kvHeads * headDim];
        const [q, k, v] = stacked(transposed(`${at}.attn.c_attn`), [wide, narrow, narrow]);
        const scale =
          (c.scale_attn_weights ? headDim ** -0.5 : 1) / (c.scale_attn_by_inverse_layer_idx ? layer + 1 : 1);
        return preNorm(
          [norm(`${at}.ln_1`), norm(`${at}.ln_2`)],
          grouped(
            { hiddenSize, queryHeads, kvHeads, headDim },
            { q, k, v, o: transposed(`${at}.attn.c_proj`) },
            { sight: { kind: "causal" }, scale },
          ),
          plain(
            { hiddenSize, intermediateSize },
            { up: transposed(`${at}.mlp.c_fc`), down: transposed(`${at}.mlp.c_proj`) },
            { f: c.activation_function },
          ),
        );
      }),
      finalNorm: norm("transformer.ln_f"),
      head: { kind: "vocabulary", map: c.tie_word_embeddings ? { ...head, weight: table } : head },
    };
  },
  gguf: {
    architecture: "gpt2",
    activation: "geluTanh",
    ownFields: true,
    config: ({ required }) => ({
      n_embd: required("embedding_length"),
      n_layer: required("block_count"),
      n_head: required("attention.head_count"),
      n_inner: required("feed_forward_length"),
      n_positions: required("context_length"),
      layer_norm_epsilon: required("attention.layer_norm_epsilon"),
      activation_function: "gelu_new",
    }),
    problem: ({ spec, headDim }) =>
      spec.blocks.some((block) => Math.abs(findStep(block, "attend")!.scale * Math.sqrt(headDim) - 1) > 1e-6)
        ? "llama.cpp scales its scores by the size of a head alone"
        : undefined,
    turned: ["attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight"],
    names: {
      layers: "transformer.h",
      outside: [
        ["token_embd", "transformer.wte"],
        ["position_embd", "transformer.wpe"],
        ["output_norm", "transformer.ln_f"],
        ["output", "lm_head"],
      ],
      inBlock: [
        ["attn_norm", "ln_1"],
        ["attn_qkv", "attn.c_attn"],
        ["attn_output", "attn.c_proj"],
        ["ffn_norm", "ln_2"],
        ["ffn_up", "mlp.c_fc"],
        ["ffn_down", "mlp.c_proj"],
      ],
    },
  },
});
