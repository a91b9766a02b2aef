import * as z from "zod/mini";
import type { ActivationFunction } from "../../core/index.js";
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
import { family } from "../family.js";
import { grouped, linearMap, type Part, plain, preNorm, stored } from "../parts.js";
import type { AttendStep, BlockShape, Buffer, ConvolveStep, MultiplicativeStep, NormSpec, Step } from "../spec.js";

const attentions = ["dense", "multiplicative", "convolutional"] as const;

const config = z.pipe(
  z.object({
    vocab_size: size(2 ** 24),
    hidden_size: size(2 ** 17),
    intermediate_size: width,
    num_hidden_layers: size(maxLayers),
    /** Also the number of modules of multiplicative layers and convolutions. */
    num_attention_heads: heads,
    max_position_embeddings: orElse(positions, 2048),
    rms_norm_eps: epsilon(1e-5),
    hidden_act: activation("relu"),
    /** How queries, keys, values and the output are made. */
    attention_layers: orElse(z.enum(attentions), "dense"),
    /** Units of a block of the MLP of which the controller chooses one; null: all work, and there is no controller. */
    controller_block: optional(width),
    controller_rank: optional(width),
    tie_word_embeddings: flag(true),
    ...tokenFields,
  }),
  z.transform((raw, context) => {
    const { hidden_size, num_attention_heads: count, intermediate_size, controller_block, controller_rank } = raw;
    const channels = hidden_size / count;
    if (channels % 4 !== 0)
      fail(context, ["hidden_size"], `size ${hidden_size}`, `a multiple of 4 · num_attention_heads, ${4 * count}`);
    if ((controller_block === undefined) !== (controller_rank === undefined))
      fail(context, ["controller_rank"], "one of controller_block and controller_rank alone", "both or neither");
    if (controller_block !== undefined && intermediate_size % controller_block !== 0)
      fail(context, ["controller_block"], `blocks of ${controller_block}`, `a divisor of ${intermediate_size} units`);
    if (controller_rank !== undefined && controller_rank % 4 !== 0)
      fail(context, ["controller_rank"], `rank ${controller_rank}`, "a multiple of 4");
    return withTokens(raw, {});
  }),
);

/** Positions and modules that the convolutions see; values see one module, as in the code that was published. */
const kernels = { q: [3, 3], k: [3, 3], v: [3, 1] } as const;
const made = ["q", "k", "v"] as const;

interface Sizes {
  hiddenSize: number;
  modules: number;
}

const product = ({ hiddenSize, modules }: Sizes, at: string, role: string, into: Buffer) => ({
  scales: { tensor: `${at}.${role}.scales`, shape: [modules, hiddenSize] },
  mixes: linearMap(`${role}_mixes`, hiddenSize / modules, hiddenSize, (rows, cols) => ({
    weight: { tensor: `${at}.${role}.mixes`, shape: [rows, cols] },
  })),
  into,
});

/** Attention whose queries, keys, values and output are products of two thin matrices, or convolutions of one such product. */
const thin =
  (sizes: Sizes, at: string, convolves: boolean): Part =>
  (from, to) => {
    const { hiddenSize, modules: heads } = sizes;
    const channels = hiddenSize / heads;
    const kernelOf = (name: (typeof made)[number]): ConvolveStep["maps"][number] => {
      const [length, span] = kernels[name];
      const cols = length * span * channels;
      return {
        kernel: linearMap(`${name}_conv`, channels, cols, stored(`${at}.${name}_conv`)),
        length,
        span,
        into: name,
      };
    };
    const multiply = (maps: MultiplicativeStep["maps"], of: Buffer): MultiplicativeStep => ({
      do: "multiplicative",
      of,
      maps,
    });
    const attend: AttendStep = {
      do: "attend",
      ...{ q: "q", k: "k", v: "v", into: "attended", heads, scale: 1 / Math.sqrt(channels) },
      kv: { heads, k: channels, v: channels },
      sight: { kind: "causal" },
    };
    const inputs: Step[] = convolves
      ? [
          multiply([product(sizes, at, "shared_proj", "shared")], from),
          { do: "convolve", of: "shared", width: hiddenSize, modules: heads, maps: made.map(kernelOf) },
        ]
      : [
          multiply(
            made.map((name) => product(sizes, at, `${name}_proj`, name)),
            from,
          ),
        ];
    const output = multiply([product(sizes, at, "o_proj", to.into)], "attended");
    return [...inputs, attend, { ...output, ...(to.add && { add: true }) }];
  };

/** down(chosen(f(up(x)))): of every `block` units the one that a controller of low rank chooses. */
const controlled =
  (
    { hiddenSize, intermediateSize }: { hiddenSize: number; intermediateSize: number },
    at: string,
    { block, rank, f }: { block: number; rank: number; f: ActivationFunction },
  ): Part =>
  (from, to) => [
    {
      do: "linear",
      of: from,
      site: { id: "mlpInput", width: hiddenSize },
      maps: [{ map: linearMap("up_proj", intermediateSize, hiddenSize, stored(`${at}.up_proj`)), into: "up" }],
    },
    { do: "activate", f, of: "up", into: "up" },
    {
      do: "choose",
      ...{ of: "up", into: "up", from, block },
      controller: {
        down: linearMap("controller_down", rank, hiddenSize, stored(`${at}.controller.down`)),
        up: linearMap("controller_up", intermediateSize, rank, stored(`${at}.controller.up`, true)),
      },
    },
    {
      do: "linear",
      of: "up",
      site: { id: "mlpHidden", width: intermediateSize },
      maps: [
        { map: linearMap("down_proj", hiddenSize, intermediateSize, stored(`${at}.down_proj`, true)), into: to.into },
      ],
      ...(to.add && { add: true }),
    },
  ];

/**
 * Terraformer, _Sparse is Enough in Scaling Transformers_ (arXiv 2111.12763): MLPs of which a controller chooses one unit of every
 * block, and thin products and convolutions in attention, each where the config says so. Positions are told by the causal mask and
 * by convolutions alone. The names are ours: no other library has checkpoints of this type.
 */
export const terraformer = family({
  modelType: "terraformer",
  config,
  spec(c, shapes) {
    const { hidden_size: hiddenSize, vocab_size: vocabSize, num_attention_heads: modules } = c;
    const headDim = hiddenSize / modules;
    const norm = (name: string): NormSpec => ({
      kind: "rms",
      weight: { tensor: `${name}.weight`, shape: [hiddenSize] },
      epsilon: c.rms_norm_eps,
    });
    const shape: BlockShape = { queryHeads: modules, kvHeads: modules, intermediateSize: c.intermediate_size };
    const table = { tensor: "model.embed_tokens.weight", shape: [vocabSize, hiddenSize] };
    const head = linearMap("lm_head", vocabSize, hiddenSize, stored("lm_head"));
    return {
      hiddenSize,
      vocabSize,
      maxPositions: c.max_position_embeddings,
      bosTokenId: c.bos_token_id,
      eosTokenIds: c.eos_token_id,
      embedding: { table },
      blocks: Array.from({ length: c.num_hidden_layers }, (_, layer) => {
        const at = `model.layers.${layer}`;
        const { queryHeads, kvHeads, intermediateSize } = shapes?.[layer] ?? shape;
        const [self, mlp] = [`${at}.self_attn`, `${at}.mlp`];
        const map = (name: string) => stored(`${self}.${name}_proj`);
        const attention =
          c.attention_layers === "dense"
            ? grouped(
                { hiddenSize, queryHeads, kvHeads, headDim },
                { q: map("q"), k: map("k"), v: map("v"), o: map("o") },
                { sight: { kind: "causal" } },
              )
            : thin({ hiddenSize, modules }, self, c.attention_layers === "convolutional");
        const sizes = { hiddenSize, intermediateSize };
        const where = { up: stored(`${mlp}.up_proj`), down: stored(`${mlp}.down_proj`, true) };
        const { controller_block: block, controller_rank: rank } = c;
        return preNorm(
          [norm(`${at}.input_layernorm`), norm(`${at}.post_attention_layernorm`)],
          attention,
          block === undefined || rank === undefined
            ? plain(sizes, where, { f: c.hidden_act })
            : controlled(sizes, mlp, { block, rank, f: c.hidden_act }),
        );
      }),
      finalNorm: norm("model.norm"),
      head: { kind: "vocabulary", map: c.tie_word_embeddings ? { ...head, weight: table } : head },
    };
  },
});
