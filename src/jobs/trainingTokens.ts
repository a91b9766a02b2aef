import { UsageError } from "../core/index.js";
import { sha256Hex } from "../io/index.js";
import { type RecordTokens, RecordWindows, TokenWindows, type Windows } from "../train/index.js";

/** A text, every token of which is learnt, or records, of which what follows the prompts is. */
export type TrainingTokens = Uint32Array | RecordTokens;

/** Whether some tokens are given and not learnt. */
export const isMasked = (tokens: TrainingTokens): tokens is RecordTokens => !(tokens instanceof Uint32Array);

/** @throws UsageError for windows longer than the model's texts, or tokens that it has no row for */
export function checkFitsModel(
  { maxPositions, vocabSize }: { maxPositions: number; vocabSize: number },
  window: number,
  texts: readonly (TrainingTokens | undefined)[],
): void {
  if (window > maxPositions)
    throw new UsageError(`windows of ${window} tokens; the model was made for ${maxPositions}`);
  for (const data of texts) {
    const beyond = data && (isMasked(data) ? data.tokens : data).find((id) => id >= vocabSize);
    if (beyond === undefined) continue;
    throw new UsageError(`token ${beyond} of a vocabulary of ${vocabSize}: the text was tokenized for another model`);
  }
}

/** @throws UsageError when they do not fill one batch */
export const windowsOf = (
  tokens: TrainingTokens,
  { window, batch, seed }: { window: number; batch: number; seed: number },
): Windows =>
  isMasked(tokens) ? new RecordWindows(tokens, batch, seed) : new TokenWindows(tokens, window, batch, seed);

/** SHA-256 of what is learnt. */
export const hashOf = async (data: TrainingTokens): Promise<string> => {
  if (!isMasked(data)) return sha256Hex(data);
  return sha256Hex(`${await sha256Hex(data.tokens)} ${await sha256Hex(data.labels)}`);
};
