import { numpy as np } from "@jax-js/jax";
import { crossEntropy, linear } from "../engine/layers.js";
import { add, equal, reshape, type Traced, take, where } from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import { TracedPass } from "../trace/pass.js";
import { traceBlock } from "../trace/trace.js";
import { type EncoderConfig, encoderBlocks, encoderParameters, sinusoids } from "./encoderParameters.js";

/**
 * A Transformer encoder that classifies: post-norm blocks of attention and a feed-forward part, all positions side by side
 * into one linear output. Batches hold `tokens` int32 [documents · length] and `label` int32 [documents].
 */
export function encoder(config: EncoderConfig): TracedModel {
  const { length, hiddenSize, clusters } = config;
  const passOf = (w: TracedArrays, batch: TracedArrays) => {
    const documents = batch.tokens.shape[0] / length;
    const filling = where(equal(reshape(batch.tokens, [documents, 1, 1, 1, length]), 0), -1e9, 0);
    const real = where(equal(reshape(batch.tokens, [documents, length]), 0), 0, 1);
    return new TracedPass(w, batch, documents, length, { clusters }, filling, real);
  };
  const logitsOf = (pass: TracedPass): Traced => {
    const { weights: w, batch, sequences: documents } = pass;
    // The sum keeps the gather apart from the reshape: the engine cannot compile the gradient of the two together.
    const positions = np.array(repeated(sinusoids(length, hiddenSize), documents), {
      shape: [documents * length, hiddenSize],
    });
    const embedded = add(take(w["embedding.weight"], batch.tokens), positions);
    const last = encoderBlocks(config).reduce((x, block, b) => traceBlock(block, b, x, pass), embedded);
    const texts = reshape(last, [documents, length * hiddenSize]);
    return add(linear(texts, w["classifier.weight"]), w["classifier.bias"]);
  };
  return {
    parameters: encoderParameters(config),
    predict: (weights, batch) => logitsOf(passOf(weights, batch)),
    loss(weights, batch) {
      const pass = passOf(weights, batch);
      return { loss: crossEntropy(logitsOf(pass), batch.label), measured: pass.measuredMembers };
    },
  };
}

function repeated(values: Float32Array, times: number): Float32Array<ArrayBuffer> {
  const all = new Float32Array(values.length * times);
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}
