import { numpy as np } from "@jax-js/jax";
import type { Random } from "../../core/index.js";
import { attention } from "../engine/attention.js";
import { crossEntropy, layerNorm, linear, relu } from "../engine/layers.js";
import { add, equal, reshape, type Traced, take, where } from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import type { FloatArray, ParameterInfo, SharedUnits } from "../values.js";

export interface EncoderConfig {
  vocabSize: number;
  /** Tokens of a document; shorter ones are filled up with token 0. */
  length: number;
  hiddenSize: number;
  feedForwardSize: number;
  heads: number;
  blocks: number;
  classes: number;
}

const epsilon = 1e-5;

/**
 * A Transformer encoder that classifies: post-norm blocks of attention and a feed-forward part, all positions side by side
 * into one linear output. Attention has no output projection, as in the study of sparse optimisation it stands for.
 * Batches hold `tokens` int32 [documents · length] and `label` int32 [documents].
 */
export function encoder(config: EncoderConfig): TracedModel {
  const { length, hiddenSize, heads, blocks } = config;
  const predict = (w: TracedArrays, { tokens }: TracedArrays): Traced => {
    const documents = tokens.shape[0] / length;
    const padding = where(equal(reshape(tokens, [documents, 1, 1, 1, length]), 0), -1e9, 0);
    const project = (x: Traced, name: string) => add(linear(x, w[`${name}.weight`]), w[`${name}.bias`]);
    const norm = (x: Traced, name: string) => layerNorm(x, w[`${name}.weight`], w[`${name}.bias`], epsilon);
    const headsOf = (x: Traced) => reshape(x, [documents, length, heads, hiddenSize / heads]);

    // The sum keeps the gather apart from the reshape: the engine cannot compile the gradient of the two together.
    const positions = np.array(repeated(sinusoids(length, hiddenSize), documents), {
      shape: [documents * length, hiddenSize],
    });
    let x = add(take(w["embedding.weight"], tokens), positions);
    for (let b = 0; b < blocks; b++) {
      const [q, k, v] = ["q", "k", "v"].map((part) => headsOf(project(x, `blocks.${b}.${part}`)));
      x = norm(add(x, attention(q, k, v, padding)), `blocks.${b}.attention_norm`);
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

export function encoderParameters(config: EncoderConfig): ParameterInfo[] {
  const { vocabSize, length, hiddenSize, feedForwardSize, heads, blocks, classes } = config;
  const dense = (name: string, ...shape: number[]): ParameterInfo => ({ name, shape, layer: "", role: "dense" });
  const parameters = [dense("embedding.weight", vocabSize, hiddenSize)];
  for (let b = 0; b < blocks; b++) {
    const neurons = { type: "neurons", group: `${b}`, count: feedForwardSize } as const;
    const map = (part: string, rows: number, cols: number, shared: SharedUnits): ParameterInfo[] => [
      { name: `blocks.${b}.${part}.weight`, shape: [rows, cols], layer: String(b), role: "inner", shared: [shared] },
      dense(`blocks.${b}.${part}.bias`, rows),
    ];
    const norm = (part: string) => [
      dense(`blocks.${b}.${part}.weight`, hiddenSize),
      dense(`blocks.${b}.${part}.bias`, hiddenSize),
    ];
    for (const part of ["q", "k", "v"]) {
      parameters.push(
        ...map(part, hiddenSize, hiddenSize, { type: "heads", group: `${b}`, axis: "rows", count: heads }),
      );
    }
    parameters.push(...norm("attention_norm"));
    parameters.push(...map("up", feedForwardSize, hiddenSize, { ...neurons, axis: "rows" }));
    parameters.push(...map("down", hiddenSize, feedForwardSize, { ...neurons, axis: "columns" }));
    parameters.push(...norm("output_norm"));
  }
  parameters.push({
    name: "classifier.weight",
    shape: [classes, length * hiddenSize],
    layer: String(blocks),
    role: "outer",
  });
  parameters.push(dense("classifier.bias", classes));
  return parameters;
}

/** Linear maps uniform in ±1/√in, norms 1, biases 0, the embedding normal with deviation 1/√hiddenSize. */
export function initialEncoder(config: EncoderConfig, random: Random): Map<string, FloatArray> {
  return new Map(
    encoderParameters(config).map(({ name, shape, role }) => {
      const values = new Float32Array(shape.reduce((a, b) => a * b, 1));
      if (name === "embedding.weight") return [name, values.map(() => random.normal() / Math.sqrt(config.hiddenSize))];
      if (role !== "dense") return [name, values.map(() => (2 * random.uniform() - 1) / Math.sqrt(shape[1]))];
      return [name, values.fill(name.endsWith("norm.weight") ? 1 : 0)];
    }),
  );
}

/** Positions as sines and cosines of falling frequency: f32 [length, width] (Vaswani et al. 2017). */
function sinusoids(length: number, width: number): Float32Array {
  return Float32Array.from({ length: length * width }, (_, i) => {
    const [position, column] = [Math.floor(i / width), i % width];
    const angle = position / 10_000 ** ((column - (column % 2)) / width);
    return column % 2 === 0 ? Math.sin(angle) : Math.cos(angle);
  });
}

function repeated(values: Float32Array, times: number): Float32Array<ArrayBuffer> {
  const all = new Float32Array(values.length * times);
  for (let i = 0; i < times; i++) all.set(values, i * values.length);
  return all;
}
