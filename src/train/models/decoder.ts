import { numpy as np } from "@jax-js/jax";
import { type ModelConfig, ropeTables } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { attention, causalMask, rotate } from "../engine/attention.js";
import { activations, crossEntropy, largestInputs, linear, rmsNorm } from "../engine/layers.js";
import { add, multiply, reshape, type Traced, take } from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import type { ParameterInfo } from "../values.js";
import type { DecoderOptions } from "./decoderOptions.js";
import { type Distillation, teacherName } from "./distillation.js";
import { divergence } from "./divergence.js";
import { type MoeOutput, mixture } from "./moe.js";
import { loadName } from "./routerNames.js";
import { isTrainable, trainable } from "./trainable.js";

/**
 * Llama and its relatives (Mistral, Mixtral, Qwen2, Qwen3) as a trainable function. Batches hold `tokens` int32 [sequences · window] and
 * `label` of the same shape: the token that follows each. Parameters have the names of the checkpoint.
 * @param window tokens of a sequence
 */
export function decoder(
  config: ModelConfig,
  parameters: readonly ParameterInfo[],
  window: number,
  options: DecoderOptions = {},
): TracedModel {
  if (!isTrainable(config)) {
    const which = trainable.join(", ");
    throw new UsageError(
      `models of the type ${config.modelType} run, but cannot be trained yet; those of ${which} can`,
    );
  }
  const activate = activations[config.activation];
  if (activate === undefined) throw new UsageError(`the activation ${config.activation} cannot be trained yet`);
  const epsilon = config.rmsNormEpsilon;

  const forward = (w: TracedArrays, batch: TracedArrays): { logits: Traced; mixtures: MoeOutput[] } => {
    const { tokens } = batch;
    const mixtures: MoeOutput[] = [];
    const sequences = tokens.shape[0] / window;
    const rope = ropeTables(config.rope, config.headDim, window);
    const mask = (layer: number) =>
      np.array(causalMask(window, config.slidingWindows[layer]), { shape: [window, window] });

    const cut = (x: Traced): Traced =>
      options.inputDensity === undefined ? x : largestInputs(x, options.inputDensity);
    /** x [n, in] through a linear map of the checkpoint: a matrix, a pair of low rank or both, and a bias where there is one. */
    const project = (x: Traced, name: string): Traced => {
      const seen = cut(x);
      const left = w[`${name}.low_rank.left`];
      const pair = left && linear(linear(seen, w[`${name}.low_rank.right`]), left);
      const direct = `${name}.weight` in w ? linear(seen, w[`${name}.weight`]) : undefined;
      const y = pair && direct ? add(pair, direct) : (pair ?? direct!);
      return `${name}.bias` in w ? add(y, w[`${name}.bias`]) : y;
    };
    /** [sequences, window, heads, headDim]; the heads that are there are counted by the weights. */
    const heads = (x: Traced, name: string, normName?: string): Traced => {
      const y = project(x, name);
      const split = reshape(y, [sequences, window, y.shape[1] / config.headDim, config.headDim]);
      const norm = normName === undefined ? undefined : w[`${normName}.weight`];
      return norm === undefined ? split : rmsNorm(split, norm, epsilon);
    };

    // Flat from the start: the engine cannot compile the gradient of a gather whose result is only reshaped.
    let x = take(w["model.embed_tokens.weight"], tokens);
    for (let layer = 0; layer < config.layers; layer++) {
      const at = `model.layers.${layer}`;
      const normed = rmsNorm(x, w[`${at}.input_layernorm.weight`], epsilon);
      const q = rotate(heads(normed, `${at}.self_attn.q_proj`, `${at}.self_attn.q_norm`), rope);
      const k = rotate(heads(normed, `${at}.self_attn.k_proj`, `${at}.self_attn.k_norm`), rope);
      const v = heads(normed, `${at}.self_attn.v_proj`);
      x = add(x, project(attention(q, k, v, mask(layer)), `${at}.self_attn.o_proj`));

      const hidden = rmsNorm(x, w[`${at}.post_attention_layernorm.weight`], epsilon);
      if (options.moe !== undefined) {
        const mixed = mixture(hidden, w, `${at}.block_sparse_moe`, layer, batch, options.moe, { activate, cut });
        mixtures.push(mixed);
        x = add(x, mixed.output);
        continue;
      }
      const gated = multiply(activate(project(hidden, `${at}.mlp.gate_proj`)), project(hidden, `${at}.mlp.up_proj`));
      x = add(x, project(gated, `${at}.mlp.down_proj`));
    }
    const final = rmsNorm(x, w["model.norm.weight"], epsilon);
    const head = w[config.tiedEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight"];
    return { logits: linear(final, head), mixtures };
  };
  return {
    parameters,
    predict: (weights, batch) => forward(weights, batch).logits,
    loss(weights, batch) {
      const { logits, mixtures } = forward(weights, batch);
      const prediction = crossEntropy(logits, batch.label);
      const wanted = distilled(prediction, logits, batch[teacherName], options.distillation);
      return {
        loss: mixtures.reduce((total, { penalty }) => add(total, penalty), wanted),
        measured: {
          prediction,
          ...Object.fromEntries(mixtures.map(({ load }, layer) => [loadName(layer), load])),
        },
      };
    },
  };
}

/** (1 − η)·loss of the text + η·divergence from the teacher, where there is one. */
function distilled(prediction: Traced, logits: Traced, teacher?: Traced, distillation?: Distillation): Traced {
  if (teacher === undefined || distillation === undefined) return prediction;
  const { share, temperature } = distillation;
  return add(multiply(prediction, 1 - share), multiply(divergence(logits, teacher, temperature), share));
}
