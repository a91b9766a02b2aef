import { UsageError } from "../../core/index.js";
import { sha256Hex } from "../../io/index.js";
import type { Tokenizer } from "../../text/index.js";

/** By which two machines see whether their tokens have the same ids: how many there are, and SHA-256 over all of them. */
export interface Vocabulary {
  readonly size: number;
  readonly digest: string;
}

/** @throws UsageError in a page that is not served securely: browsers compute no digests there */
export async function vocabularyOf(tokenizer: Pick<Tokenizer, "vocabSize" | "tokenOf">): Promise<Vocabulary> {
  const { vocabSize } = tokenizer;
  if (globalThis.crypto?.subtle === undefined) {
    throw new UsageError("vocabularies are compared by SHA-256, which browsers give to https:// and localhost alone");
  }
  const tokens = Array.from({ length: vocabSize }, (_, id) => tokenizer.tokenOf(id) ?? null);
  return { size: vocabSize, digest: await sha256Hex(JSON.stringify(tokens)) };
}
