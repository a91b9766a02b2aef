import { activeShares, type ModelSpec } from "../arch/index.js";
import type { ActivationSparsity } from "../io/index.js";
import { type WeightFormatId, weightFormats } from "../pack/index.js";

/**
 * Weight bytes that thresholds are expected to save per decoded token: for every linear map that works for a token, the
 * columns of its expected share of zero inputs. Scales that a wholly skipped group of inputs would save are left out, so it is
 * a lower bound.
 */
export function expectedBytesSaved(
  { blocks }: ModelSpec,
  weights: WeightFormatId,
  { method, layers }: ActivationSparsity,
): number {
  let saved = 0;
  for (const [l, block] of blocks.entries()) {
    for (const [{ role, rows, cols }, share] of activeShares(block)) {
      saved += share * cols * expectedSparsity(role, layers[l], method) * weightFormats[weights].columnBytes(rows);
    }
  }
  return saved;
}

/** A gate threshold makes zeros in front of `down_proj` alone. */
function expectedSparsity(
  role: string,
  layer: ActivationSparsity["layers"][number],
  method: ActivationSparsity["method"],
): number {
  if (method === "cats" && role === "down_proj") return layer.gate?.sparsity ?? 0;
  return layer.maps[role]?.sparsity ?? 0;
}
