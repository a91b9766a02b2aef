import { UsageError } from "../core/index.js";
import type { Layer, PruneMethod, PruneResult } from "./contract.js";
import type { Pattern, Scope } from "./pattern.js";
import { type Counting, selectMask } from "./select.js";

/** The scope a method compares in: the pattern's, or the method's default. @throws UsageError when not admitted. */
export function scopeFor(method: Pick<PruneMethod, "id" | "patterns">, pattern: Pattern): Scope {
  const admitted = method.patterns[pattern.type];
  if (admitted === undefined) throw new UsageError(`${method.id} has no pattern ${pattern.type}`);
  const wanted = "scope" in pattern && pattern.scope !== undefined ? pattern.scope : admitted[0];
  if (!admitted.includes(wanted)) {
    throw new UsageError(`${method.id} compares ${pattern.type} entries per ${admitted.join(", ")}, not per ${wanted}`);
  }
  return wanted;
}

/** Prunes by scores alone: kept weights are not touched. */
export function pruneByScore(
  method: Pick<PruneMethod, "id" | "patterns">,
  layer: Layer,
  scores: Float32Array,
  pattern: Pattern,
  counting: Counting = "exact",
): PruneResult {
  const mask = selectMask(scores, layer.rows, layer.cols, pattern, scopeFor(method, pattern), counting);
  return maskedCopy(layer, mask);
}

/** The layer's weights under `mask` and the layer's earlier mask; `mask` is updated and returned. */
export function maskedCopy(layer: Layer, mask: Uint8Array): PruneResult {
  const weight = new Float32Array(layer.weight.length);
  for (let i = 0; i < weight.length; i++) {
    if (layer.mask !== undefined && layer.mask[i] === 0) mask[i] = 0;
    if (mask[i] === 1) weight[i] = layer.weight[i];
  }
  return { weight, mask };
}

/** The dead-input and earlier-mask zeros of a layer applied to an f64 working copy. */
export function workingCopy(layer: Layer, dead: Uint8Array): { weights: Float64Array; keep: Uint8Array } {
  const weights = Float64Array.from(layer.weight);
  const keep = layer.mask?.slice() ?? new Uint8Array(weights.length).fill(1);
  for (let i = 0; i < weights.length; i++) {
    if (!Number.isFinite(weights[i])) throw new UsageError(`weight ${i} is ${weights[i]}; it must be finite`);
    if (dead[i % layer.cols] === 1 || keep[i] === 0) weights[i] = 0;
  }
  return { weights, keep };
}

/** f32 weights from a finished working copy, exactly +0 where the mask is 0. */
export function finishedWeight(weights: Float64Array, mask: Uint8Array): Float32Array {
  return Float32Array.from(weights, (value, i) => (mask[i] === 1 ? value : 0));
}
