import { FormatError } from "../../core/index.js";

/** No known vocabulary has longer ones; splits are tried at every place. */
const maxTokenLength = 512;

/**
 * The merges of a SentencePiece BPE vocabulary, which stores a score per token: every way to make a token of two others, best
 * score first; at equal scores longer left parts first, then longer right parts.
 * @throws FormatError for a token too long to have come from merges
 */
export function mergesFromScores(
  file: string,
  ids: ReadonlyMap<string, number>,
  scores: readonly number[],
): string[][] {
  const merges: { pair: string[]; score: number; left: number; right: number; order: number }[] = [];
  for (const [token, id] of ids) {
    const characters = Array.from(token);
    if (characters.length > maxTokenLength) {
      throw new FormatError({
        file,
        field: "tokenizer.ggml.tokens",
        problem: `token ${id} has ${characters.length} characters`,
        expected: `at most ${maxTokenLength}`,
      });
    }
    let left = "";
    for (let i = 1; i < characters.length; i++) {
      left += characters[i - 1];
      const right = token.slice(left.length);
      const [leftId, rightId] = [ids.get(left), ids.get(right)];
      if (leftId === undefined || rightId === undefined) continue;
      merges.push({ pair: [left, right], score: scores[id], left: i, right: characters.length - i, order: leftId });
    }
  }
  merges.sort((a, b) => b.score - a.score || b.left - a.left || b.right - a.right || a.order - b.order);
  return merges.map(({ pair }) => pair);
}
