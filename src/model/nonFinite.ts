import type { NonFiniteError } from "../core/index.js";
import { firstNonFinite } from "../tensor/index.js";
import type { Model } from "./types.js";

/** The place of the first NaN or infinity of f32 numbers; −1 where all are finite. */
export const firstNonFiniteOf = (values: Float32Array): number =>
  firstNonFinite("F32", new Uint8Array(values.buffer, values.byteOffset, values.byteLength));

/** @throws the model's damage, if it has any: nothing that is computed with it means anything */
export function checkSound({ damage }: Pick<Model, "damage">): void {
  if (damage !== undefined) throw damage;
}

/**
 * Why logits after `tokens` are not finite: runs them again, block by block, until the first number that is NaN or infinite. It
 * takes a pass and more, and is meant for after the fact.
 * @param tokens of one sequence, from position 0
 */
export async function explainNonFinite(model: Model, tokens: Uint32Array): Promise<NonFiniteError> {
  const { findNonFinite } = await import("./findNonFinite.js");
  return findNonFinite(model, tokens, firstNonFiniteOf);
}
