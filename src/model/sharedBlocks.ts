import type { BlockSpec } from "../arch/index.js";

/**
 * Loads every block once, however many layers have its weights.
 * @param perToken bytes so far that a token is multiplied with, each block counted as it was loaded
 * @returns by layer, and the bytes that a token is multiplied with again
 */
export async function loadOnce<Weights>(
  blocks: readonly BlockSpec[],
  load: (block: BlockSpec) => Promise<Weights>,
  perToken: () => number,
): Promise<{ blocks: Weights[]; again: number }> {
  const loaded = new Map<BlockSpec, { weights: Weights; bytes: number }>();
  let again = 0;
  for (const block of blocks) {
    const found = loaded.get(block);
    if (found !== undefined) again += found.bytes;
    else {
      const before = perToken();
      loaded.set(block, { weights: await load(block), bytes: perToken() - before });
    }
  }
  return { blocks: blocks.map((block) => loaded.get(block)!.weights), again };
}
