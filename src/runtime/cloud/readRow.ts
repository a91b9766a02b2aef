import type { Activation } from "../../kernels/index.js";
import { explainNonFinite, firstNonFiniteOf } from "../../model/index.js";
import type { Sequence } from "../sequence.js";

/**
 * Logits f32 [tokens] of the newest token of a sequence, read and released.
 * @param logits [1, logitCols] @param tokens of the vocabulary that count; default all of the model's
 * @throws NonFiniteError naming where numbers that are not finite come from
 */
export async function readRow(
  { model, tokens: ran }: Sequence,
  logits: Activation,
  tokens = model.config.vocabSize,
): Promise<Float32Array> {
  const { backend } = model;
  const row = (await backend.read(logits).finally(() => backend.release(logits))).subarray(0, tokens);
  if (firstNonFiniteOf(row) >= 0) throw await explainNonFinite(model, Uint32Array.from(ran));
  return row;
}
