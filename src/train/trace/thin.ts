import { numpy as np } from "@jax-js/jax";
import { linear } from "../engine/layers.js";
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
  transpose,
  where,
} from "../engine/ops.js";

/**
 * The layers of Terraformer (Jaszczur et al. 2021, arXiv 2111.12763) as functions that are differentiated: the mask of a controller that
 * chooses one unit of every block, dense layers that are products of two thin ones, convolutions over positions and modules.
 */

/** What a controller is given while it learns. */
export interface ControllerNoise {
  /** f32 [rows, units], added to its logarithms of shares. */
  readonly noise: Traced;
  /** Between 0, where units work by their shares, and 1, where one works alone. */
  readonly hard: Traced;
}

/**
 * Which unit of every block works: f32 [rows, units], 0 or 1 where it is hard.
 * @param logits f32 [rows, units]
 * @param given left out: no noise, and hard, as the model is run
 */
export function controllerMask(logits: Traced, block: number, given?: ControllerNoise): Traced {
  const [rows, units] = logits.shape;
  const split = (x: Traced) => reshape(x, [rows, units / block, block]);
  const likely = logSoftmax(split(logits));
  const soft = exp(likely);
  const noisy = given === undefined ? likely : add(likely, split(given.noise));
  const most = np.max(noisy.ref, -1, { keepdims: true });
  const chosen = stopGradient(where(greaterEqual(noisy, most), 1, 0));
  // Forward the choice, backward the probabilities.
  const straight = add(stopGradient(subtract(chosen, soft)), soft);
  const mask =
    given === undefined ? straight : add(multiply(given.hard, straight), multiply(subtract(1, given.hard), soft));
  return reshape(mask, [rows, units]);
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
