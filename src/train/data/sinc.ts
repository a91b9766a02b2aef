import type { Random } from "../../core/index.js";
import type { Batch } from "../objective.js";

/**
 * y = sin(x)/x + noise, x uniform on [−10, 10]: the regression of the sparse optimisation study.
 * @param variance of the normal noise; the study has 0.005
 */
export function sincData(random: Random, samples: number, variance = 0.005): Batch {
  const x = Float32Array.from({ length: samples }, () => 20 * random.uniform() - 10);
  const deviation = Math.sqrt(variance);
  const y = x.map((v) => (v === 0 ? 1 : Math.sin(v) / v) + deviation * random.normal());
  return { input: { shape: [samples, 1], values: x }, target: { shape: [samples], values: y } };
}
