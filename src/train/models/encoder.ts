import { numpy as np } from "@jax-js/jax";
import { attention } from "../engine/attention.js";
import { crossEntropy, layerNorm, linear, relu } from "../engine/layers.js";
import { add, equal, reshape, type Traced, take, where } from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import { type EncoderConfig, encoderEpsilon, encoderParameters, sinusoids } from "./encoderParameters.js";

/**
 * A Transformer encoder that classifies: post-norm blocks of attention and a feed-forward part, all positions side by side
 * into one linear output. Attention has no output projection, as in the study of sparse optimisation it stands for.
 * Batches hold `tokens` int32 [documents · length] and `label` int32 [documents].
 */
export function encoder(config: EncoderConfig): TracedModel {
  const { length, hiddenSize, heads, blocks } = config;
  const predict = (w: TracedArrays, { tokens }: TracedArrays): Traced => {
    const documents = tokens.shape[0] / length;
    const scale = 1 / Math.sqrt(hiddenSize / heads);
    const padding = where(equal(reshape(tokens, [documents, 1, 1, 1, length]), 0), -1e9, 0);
    const project = (x: Traced, name: string) => add(linear(x, w[`${name}.weight`]), w[`${name}.bias`]);
    const norm = (x: Traced, name: string) => layerNorm(x, w[`${name}.weight`], w[`${name}.bias`], encoderEpsilon);
    const headsOf = (x: Traced) => reshape(x, [documents, length, heads, hiddenSize / heads]);

    // The sum keeps the gather apart from the reshape: the engine cannot compile the gradient of the two together.
    const positions = np.array(repeated(sinusoids(length, hiddenSize), documents), {
      shape: [documents * length, hiddenSize],
    });
    let x = add(take(w["embedding.weight"], tokens), positions);
    for (let b = 0; b < blocks; b++) {
      const [q, k, v] = ["q", "k", "v"].map((part) => headsOf(project(x, `blocks.${b}.${part}`)));
      x = norm(add(x, attention(q, k, v, { scale, mask: padding })), `blocks.${b}.attention_norm`);
      const hidden = relu(project(x, `blocks.${b}.up`));
      x = norm(add(x, project(hidden, `blocks.${b}.down`)), `blocks.${b}.output_norm`);
    }
    return project(reshape(x, [documents, length * hiddenSize]), "classifier");
  };
  return {
    parameters: encoderParameters(config),
    predict,
    loss: (weights, batch) => ({ loss: crossEntropy(predict(weights, batch), batch.label) }),
  };
}

function repeated(values: Float32Array, times: number): Float32Array<ArrayBuffer> {
  const all = new Float32Array(values.length * times);
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}
