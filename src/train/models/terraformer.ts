import { numpy as np } from "@jax-js/jax";
import type { Random } from "../../core/index.js";
import { attention, causalMask } from "../engine/attention.js";
import { crossEntropy, linear, relu, rmsNorm } from "../engine/layers.js";
import {
  add,
  concatenate,
  exp,
  greaterEqual,
  logSoftmax,
  matmul,
  multiply,
  reshape,
  stopGradient,
  subtract,
  type Traced,
  take,
  transpose,
  where,
} from "../engine/ops.js";
import type { TracedArrays, TracedModel } from "../engine/tracedObjective.js";
import type { Batch } from "../objective.js";
import type { FloatArray, ParameterInfo } from "../values.js";

/**
 * The layers of Terraformer (Jaszczur et al. 2021, arXiv:2111.12763) as trainable functions: an MLP of which a controller chooses one unit
 * of every block, dense layers that are products of two thin ones, and queries, keys and values that are convolutions over modules.
 */

/** Shape of a small Terraformer over tokens. */
export interface TerraformerOptions {
  readonly vocabulary: number;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly heads: number;
  readonly intermediateSize: number;
  readonly window: number;
  /** "dense", or of every `block` units one, chosen by a controller of rank `rank`. */
  readonly mlp: "dense" | { readonly block: number; readonly rank: number };
  /** How queries, keys, values and the output are made. */
  readonly attention: "dense" | "multiplicative" | "convolutional";
}

/** Names, in a batch, of what the controller is given: noise f32 [layers · rows, intermediateSize], and 1 where it decides hard. */
export const [noiseName, hardName] = ["controllerNoise", "controllerHard"];

/** Length and modules that a convolution sees; values see one module, as in the published code. */
const kernels = { q: [3, 3], k: [3, 3], v: [3, 1] } as const;

/** Which unit of every block works: f32 [rows, units], 0 or 1 where it is hard. @param logits f32 [rows, units] */
export function controllerMask(logits: Traced, block: number, noise: Traced, hard: Traced): Traced {
  const [rows, units] = logits.shape;
  const likely = logSoftmax(reshape(logits, [rows, units / block, block]));
  const soft = exp(likely);
  const noisy = add(likely, reshape(noise, [rows, units / block, block]));
  const most = np.max(noisy.ref, -1, { keepdims: true });
  const chosen = stopGradient(where(greaterEqual(noisy, most), 1, 0));
  // Forward the choice, backward the probabilities.
  const straight = add(stopGradient(subtract(chosen, soft)), soft);
  return reshape(add(multiply(hard, straight), multiply(subtract(1, hard), soft)), [rows, units]);
}

/** y[s, m] = Σ_i x[i] · scales[s, i] · mixes[m, i]: x [n, d], scales [S, d], mixes [M, d], y [n, S · M]. */
export function multiplicativeDense(x: Traced, scales: Traced, mixes: Traced): Traced {
  const [n, d] = x.shape;
  const [modules] = scales.shape;
  const scaled = multiply(reshape(x, [n, 1, d]), reshape(scales, [1, modules, d]));
  return reshape(linear(reshape(scaled, [n * modules, d]), mixes), [n, modules * mixes.shape[0]]);
}

/**
 * Convolution over positions (causal) and modules (around each), channels to channels: x [sequences · window, S · M], kernel
 * [M, length · width · M], of which the first M columns are for the position itself and the module before it.
 */
export function convolve(
  x: Traced,
  kernel: Traced,
  { window, modules, length, width }: { window: number; modules: number; length: number; width: number },
): Traced {
  const [rows, cols] = x.shape;
  const channels = cols / modules;
  const patches: Traced[] = [];
  for (let back = 0; back < length; back++) {
    const earlier = shifted(reshape(x, [rows / window, window, cols]), back);
    for (let at = 0; at < width; at++) {
      const from = at - Math.floor(width / 2);
      patches.push(shifted(reshape(earlier, [rows, modules, channels]), -from));
    }
  }
  const seen = reshape(concatenate(patches, 2), [rows * modules, length * width * channels]);
  return reshape(linear(seen, kernel), [rows, cols]);
}

/** x [outer, n, inner], of which entry i on the axis in the middle is what was at i − by; 0 where there was nothing. */
function shifted(x: Traced, by: number): Traced {
  if (by === 0) return x;
  const [outer, n, inner] = x.shape;
  const ones = Float32Array.from({ length: n * n }, (_, at) => ((at % n) - Math.floor(at / n) === by ? 1 : 0));
  const last = reshape(transpose(x, [0, 2, 1]), [outer * inner, n]);
  return transpose(reshape(matmul(last, np.array(ones, { shape: [n, n] })), [outer, inner, n]), [0, 2, 1]);
}

/** Its parameters by name. */
export function terraformerParameters(options: TerraformerOptions): ParameterInfo[] {
  const { vocabulary, layers, hiddenSize: d, heads, intermediateSize, mlp } = options;
  const found: ParameterInfo[] = [];
  const put = (name: string, ...shape: number[]) => found.push({ name, shape, layer: "", role: "dense" });
  const width = d / heads;
  put("embedding", vocabulary, d);
  for (let l = 0; l < layers; l++) {
    const own = (name: string, ...shape: number[]) => put(`${l}.${name}`, ...shape);
    own("attention.norm", d);
    if (options.attention === "dense") for (const name of ["q", "k", "v"]) own(name, d, d);
    else {
      const products = options.attention === "multiplicative" ? ["q", "k", "v"] : ["shared"];
      for (const name of products) {
        own(`${name}.scales`, heads, d);
        own(`${name}.mixes`, width, d);
      }
    }
    if (options.attention === "convolutional")
      for (const [name, [length, modules]] of Object.entries(kernels)) own(name, width, length * modules * width);
    if (options.attention === "dense") own("output", d, d);
    else {
      own("output.scales", heads, d);
      own("output.mixes", width, d);
    }
    own("mlp.norm", d);
    if (mlp !== "dense") {
      own("controller.down", mlp.rank, d);
      own("controller.up", intermediateSize, mlp.rank);
      own("controller.bias", intermediateSize);
    }
    own("up", intermediateSize, d);
    own("down", d, intermediateSize);
    own("down.bias", d);
  }
  put("norm", d);
  return found;
}

/** Random values to begin with: matrices by their inputs, norms 1, biases 0. */
export function initialTerraformer(parameters: readonly ParameterInfo[], random: Random): Map<string, FloatArray> {
  return new Map(
    parameters.map(({ name, shape }) => {
      const length = shape.reduce((all, size) => all * size, 1);
      if (name.endsWith("norm")) return [name, new Float32Array(length).fill(1)];
      if (name.endsWith("bias")) return [name, new Float32Array(length)];
      // Scales keep the size of what they multiply.
      const deviation = name.endsWith("scales") ? 1 : 1 / Math.sqrt(shape.at(-1)!);
      return [name, Float32Array.from({ length }, () => deviation * random.normal())];
    }),
  );
}

/** The controller's arrays of a step. @param random left out: no noise, and hard, as the model is run */
export function controllerArrays(options: TerraformerOptions, rows: number, random?: Random): Batch {
  const { layers, intermediateSize } = options;
  const length = layers * rows * intermediateSize;
  // Gumbel noise at temperature 0.1; hard in 30 % of the steps.
  const gumbel = () => -0.1 * Math.log(-Math.log(Math.min(1 - 1e-6, Math.max(1e-6, random!.uniform()))));
  const noise = random ? Float32Array.from({ length }, gumbel) : new Float32Array(length);
  const hard = random === undefined || random.uniform() < 0.3 ? 1 : 0;
  return {
    [noiseName]: { shape: [layers, rows, intermediateSize], values: noise },
    [hardName]: { shape: [1], values: Float32Array.of(hard) },
  };
}

/** The model as a function of its weights; batches have `tokens` and `label` int32 [sequences · window], and `controllerArrays`. */
export function terraformerModel(options: TerraformerOptions): TracedModel {
  const logits = (weights: TracedArrays, batch: TracedArrays): Traced => {
    let x = take(weights.embedding, batch.tokens);
    for (let l = 0; l < options.layers; l++) {
      const own = (name: string) => weights[`${l}.${name}`];
      x = add(x, attend(rmsNorm(x, own("attention.norm"), 1e-5), own, options));
      x = add(x, feedForward(rmsNorm(x, own("mlp.norm"), 1e-5), own, batch, l, options));
    }
    return linear(rmsNorm(x, weights.norm, 1e-5), weights.embedding);
  };
  return {
    parameters: terraformerParameters(options),
    predict: logits,
    loss: (weights, batch) => ({ loss: crossEntropy(logits(weights, batch), batch.label) }),
  };
}

type Own = (name: string) => Traced;

function attend(x: Traced, own: Own, options: TerraformerOptions): Traced {
  const { window, heads, hiddenSize } = options;
  const width = hiddenSize / heads;
  const product = (name: string, of: Traced) => multiplicativeDense(of, own(`${name}.scales`), own(`${name}.mixes`));
  const shared = options.attention === "convolutional" ? product("shared", x) : x;
  const made = (Object.keys(kernels) as (keyof typeof kernels)[]).map((name) => {
    if (options.attention === "dense") return linear(x, own(name));
    if (options.attention === "multiplicative") return product(name, x);
    const [length, modules] = kernels[name];
    return convolve(shared, own(name), { window, modules: heads, length, width: modules });
  });
  const [q, k, v] = made.map((part) => reshape(part, [x.shape[0] / window, window, heads, width]));
  const mask = np.array(causalMask(window), { shape: [window, window] });
  const mixed = attention(q, k, v, { scale: 1 / Math.sqrt(width), mask });
  return options.attention === "dense" ? linear(mixed, own("output")) : product("output", mixed);
}

function feedForward(x: Traced, own: Own, batch: TracedArrays, layer: number, { mlp }: TerraformerOptions): Traced {
  const units = relu(linear(x, own("up")));
  if (mlp === "dense") return add(linear(units, own("down")), own("down.bias"));
  const choice = add(linear(linear(x, own("controller.down")), own("controller.up")), own("controller.bias"));
  const noise = batch[noiseName].ref.slice(layer);
  const mask = controllerMask(choice, mlp.block, noise, batch[hardName]);
  return add(linear(multiply(units, mask), own("down")), own("down.bias"));
}
