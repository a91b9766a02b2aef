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
    const chosen = new Set(block.steps.flatMap((step) => (step.do === "choose" ? [step.into] : [])));
    const behind = new Set(
      block.steps.flatMap((step) =>
        step.do === "linear" && chosen.has(step.of) ? step.maps.map(({ map }) => map) : [],
      ),
    );
    for (const [map, share] of activeShares(block)) {
      const { role, rows, cols } = map;
      // Most of what is 0 behind a choice was not chosen, and does not work for a token anyway.
      const idle = behind.has(map) ? Math.max(0, share + zeros[role] - 1) : share * zeros[role];
      saved += idle * cols * weightFormats[weights].columnBytes(rows);
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
