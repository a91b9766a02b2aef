import * as z from "zod/mini";
import { quote } from "../../core/index.js";
import * as field from "../configFields.js";
import { family } from "../family.js";
import { grouped, layerNorm, linearMap, plain, postNorm, stored } from "../parts.js";
import type { BlockShape, HeadSpec } from "../spec.js";

const labels = z.nullish(z.record(z.string().check(z.regex(/^\d{1,6}$/)), z.string()));

const oneOfLabels = "single_label_classification";

const config = z.pipe(
  z.object({
    architectures: field.optional(z.array(z.string()).check(z.maxLength(16))),
    vocab_size: field.orElse(field.size(2 ** 24), 30522),
    hidden_size: field.orElse(field.size(2 ** 17), 768),
    num_hidden_layers: field.orElse(field.size(field.maxLayers), 12),
    num_attention_heads: field.orElse(field.heads, 12),
    intermediate_size: field.orElse(field.width, 3072),
    max_position_embeddings: field.orElse(field.positions, 512),
    type_vocab_size: field.orElse(field.size(4096), 2),
    hidden_act: field.activation("gelu"),
    layer_norm_eps: field.epsilon(1e-12),
    position_embedding_type: field.orElse(z.literal("absolute"), "absolute"),
    is_decoder: field.orElse(z.literal(false), false),
    id2label: labels,
    problem_type: field.optional(z.string().check(z.maxLength(100))),
    ...field.tokenFields,
  }),
  z.transform((raw, context) => {
    if (raw.hidden_size % raw.num_attention_heads !== 0) {
      const expected = `a multiple of num_attention_heads, ${raw.num_attention_heads}`;
      field.fail(context, ["hidden_size"], `size ${raw.hidden_size}`, expected);
    }
    const [architecture = "BertModel"] = raw.architectures ?? [];
    if (!(architecture in heads)) {
      const expected = field.listOf(heads);
      field.fail(context, ["architectures"], `${JSON.stringify(architecture)} is not supported`, expected);
    }
    const count = raw.id2label == null ? 2 : Object.keys(raw.id2label).length;
    const named = Array.from({ length: count }, (_, i) => raw.id2label?.[i] ?? `LABEL_${i}`);
    if (architecture === "BertForSequenceClassification") {
      // transformers' pipelines make no softmax of these.
      const type = raw.problem_type ?? (count === 1 ? "regression" : oneOfLabels);
      if (type !== oneOfLabels) {
        field.fail(
          context,
          ["problem_type"],
          `classifying of type ${quote(type)} is not supported`,
          quote(oneOfLabels),
        );
      }
    }
    if (count === 0) field.fail(context, ["id2label"], "no labels", "one or more, by their numbers from 0 on");
    return { ...field.withTokens(raw, {}), architecture: architecture as keyof typeof heads, labels: named };
  }),
);

/** `architectures` of config.json → what stands before the names of tensors, and what is made of the residual stream. */
const heads: Readonly<Record<string, { at: string; head(hiddenSize: number, labels: readonly string[]): HeadSpec }>> = {
  BertModel: { at: "", head: () => ({ kind: "none" }) },
  BertForSequenceClassification: {
    at: "bert.",
    head: (hiddenSize, labels) => ({
      kind: "classifier",
      // tanh(dense(x)): the pooler.
      steps: [
        {
          do: "linear",
          of: "x",
          site: { id: "poolerInput", width: hiddenSize },
          maps: [
            { map: linearMap("pooler", hiddenSize, hiddenSize, stored("bert.pooler.dense", true)), into: "pooled" },
          ],
        },
        { do: "cap", of: "pooled", kind: "soft", cap: 1 },
      ],
      from: "pooled",
      map: linearMap("classifier", labels.length, hiddenSize, stored("classifier", true)),
      labels,
    }),
  },
};

/** BERT (arXiv 1810.04805): an encoder that reads a text as a whole, with norms behind the sums. */
export const bert = family({
  modelType: "bert",
  config,
  ignored:
    "directionality pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type".split(
      " ",
    ),
  spec(c, shapes) {
    const { hidden_size: hiddenSize, vocab_size: vocabSize, num_attention_heads: queryHeads } = c;
    const { at: before, head } = heads[c.architecture];
    const shape: BlockShape = { queryHeads, kvHeads: queryHeads, intermediateSize: c.intermediate_size };
    const headDim = hiddenSize / queryHeads;
    const norm = (name: string) => layerNorm(name, hiddenSize, c.layer_norm_eps);
    const table = (name: string, rows: number) => ({
      tensor: `${before}embeddings.${name}_embeddings.weight`,
      shape: [rows, hiddenSize],
    });
    return {
      hiddenSize,
      vocabSize,
      maxPositions: c.max_position_embeddings,
      bosTokenId: c.bos_token_id,
      eosTokenIds: c.eos_token_id,
      embedding: {
        table: table("word", vocabSize),
        positions: { table: table("position", c.max_position_embeddings), offset: 0 },
        types: table("token_type", c.type_vocab_size),
        norm: norm(`${before}embeddings.LayerNorm`),
      },
      blocks: Array.from({ length: c.num_hidden_layers }, (_, layer) => {
        const at = `${before}encoder.layer.${layer}`;
        const { queryHeads, kvHeads, intermediateSize } = shapes?.[layer] ?? shape;
        const map = (name: string) => stored(`${at}.${name}`, true);
        return postNorm(
          [norm(`${at}.attention.output.LayerNorm`), norm(`${at}.output.LayerNorm`)],
          grouped(
            { hiddenSize, queryHeads, kvHeads, headDim },
            {
              q: map("attention.self.query"),
              k: map("attention.self.key"),
              v: map("attention.self.value"),
              o: map("attention.output.dense"),
            },
            { sight: { kind: "all" } },
          ),
          plain(
            { hiddenSize, intermediateSize },
            { up: map("intermediate.dense"), down: map("output.dense") },
            { f: c.hidden_act },
          ),
        );
      }),
      head: head(hiddenSize, c.labels),
    };
  },
  gguf: {
    architecture: "bert",
    encoder: true,
    activation: "gelu",
    ownFields: true,
    config: ({ required, number }) => ({
      architectures: ["BertModel"],
      // Means are what `embed` gives; of another kind users hear.
      ...(number("pooling_type") !== 1 && { pooling_type: number("pooling_type") }),
      hidden_size: required("embedding_length"),
      num_hidden_layers: required("block_count"),
      num_attention_heads: required("attention.head_count"),
      intermediate_size: required("feed_forward_length"),
      max_position_embeddings: required("context_length"),
      layer_norm_eps: required("attention.layer_norm_epsilon"),
    }),
    counts: () => ({ pooling_type: 1 }),
    problem: ({ spec }) =>
      spec.head.kind === "none"
        ? undefined
        : "it has a head that classifies; such files hold the model beneath (BertModel)",
    leftOut: ["pooler.dense.weight", "pooler.dense.bias"],
    names: {
      layers: "encoder.layer",
      outside: [
        ["token_embd", "embeddings.word_embeddings"],
        ["position_embd", "embeddings.position_embeddings"],
        ["token_types", "embeddings.token_type_embeddings"],
        ["token_embd_norm", "embeddings.LayerNorm"],
      ],
      inBlock: [
        ["attn_q", "attention.self.query"],
        ["attn_k", "attention.self.key"],
        ["attn_v", "attention.self.value"],
        ["attn_output", "attention.output.dense"],
        ["attn_output_norm", "attention.output.LayerNorm"],
        ["ffn_up", "intermediate.dense"],
        ["ffn_down", "output.dense"],
        ["layer_output_norm", "output.LayerNorm"],
      ],
    },
  },
});
