import { activationOf, type BlockSpec, linearsOf, type ModelSpec } from "../arch/index.js";
import { activeShares } from "../arch/internal.js";
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
  { layers }: ActivationSparsity,
): number {
  let saved = 0;
  for (const [l, block] of blocks.entries()) {
    const zeros = expectedZeros(block, layers[l]);
    for (const [{ role, rows, cols }, share] of activeShares(block)) {
      saved += share * cols * zeros[role] * weightFormats[weights].columnBytes(rows);
    }
  }
  return saved;
}

/** The share of zeros that a record expects in front of each map of a block, by role. */
export function expectedZeros(
  block: BlockSpec,
  { maps, gate }: ActivationSparsity["layers"][number],
): Record<string, number> {
  // Behind a dropped gate lies a zero in front of the maps that read it.
  const behindGate = new Set(gate && activationOf(block)?.readers);
  const share = (role: string) => (behindGate.has(role) ? gate!.sparsity : (maps[role]?.sparsity ?? 0));
  return Object.fromEntries(linearsOf(block).map(({ role }) => [role, share(role)]));
}
