import { type ModelSpec, readersOf } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Artifact } from "../io/index.js";
import type { ActivationThresholds } from "../model/index.js";

/**
 * Thresholds for another share of zeros than the one that a model was calibrated for, from the quantiles of its activations that
 * its `rarefy.json` holds: the same share in every linear map. Between quantiles it goes in straight lines.
 * @param sparsity share of inputs that count as zero, from 0 up to 0.95
 * @throws UsageError where nothing was seen of the activations, and for a share out of range
 */
export function thresholdsAt(artifact: Artifact | undefined, spec: ModelSpec, sparsity: number): ActivationThresholds {
  if (!(sparsity >= 0 && sparsity <= 0.95)) throw new UsageError(`a sparsity of ${sparsity}; expected 0 to 0.95`);
  const seen = artifact?.activations;
  if (seen === undefined || seen.length !== spec.blocks.length) {
    throw new UsageError("nothing is known of the activations of this model: calibrate it first (rarefy calibrate)");
  }
  const maps = spec.blocks.map((block, layer) => {
    const thresholds: Record<string, number> = {};
    for (const [site, roles] of readersOf(block)) {
      const quantiles = seen[layer][site]?.absQuantiles;
      if (quantiles !== undefined) for (const role of roles) thresholds[role] = quantileAt(quantiles, sparsity);
    }
    return thresholds;
  });
  return { maps };
}

/** @param quantiles |x| at 1/n, 2/n … 1 */
function quantileAt(quantiles: readonly number[], share: number): number {
  const at = share * quantiles.length - 1;
  const below = Math.floor(at);
  const low = below < 0 ? 0 : quantiles[below];
  return low + (at - below) * (quantiles[below + 1] - low);
}
