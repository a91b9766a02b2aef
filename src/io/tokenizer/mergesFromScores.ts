import { FormatError } from "../../core/index.js";

/** No known vocabulary has longer ones; splits are tried at every place. */
const maxTokenLength = 512;
/** Published vocabularies have 2 to 3 merges per token; a family such as a, aa, aaa … has as many as half its length. */
const maxMergesPerToken = 16;
/** Small vocabularies may be made of such families. */
const extraMerges = 2 ** 16;
/** Characters looked up over all splits of all tokens: 40 times what the largest published vocabulary needs. */
const maxLookedUp = 2 ** 30;

interface Merge {
  pair: string[];
  score: number;
  left: number;
  right: number;
  order: number;
}

/**
 * The merges of a SentencePiece BPE vocabulary, which stores a score per token: every way to make a token of two others, best
 * score first; at equal scores longer left parts first, then longer right parts.
 * @param field what the tokens are called in the file
 * @throws FormatError for tokens that cannot have come from merges, and for more merges than a vocabulary has
 */
export function mergesFromScores(
  file: string,
  field: string,
  ids: ReadonlyMap<string, number>,
  scores: ArrayLike<number>,
): string[][] {
  const fail = (problem: string, expected: string) => new FormatError({ file, field, problem, expected });
  const merges: Merge[] = [];
  const most = extraMerges + maxMergesPerToken * ids.size;
  let lookedUp = 0;
  for (const [token, id] of ids) {
    const characters = Array.from(token);
    if (characters.length > maxTokenLength) {
      throw fail(`token ${id} has ${characters.length} characters`, `at most ${maxTokenLength}`);
    }
    lookedUp += characters.length * token.length;
    if (lookedUp > maxLookedUp) throw fail("too many long tokens", "a vocabulary made by merging pairs");
    let left = "";
    for (let i = 1; i < characters.length; i++) {
      left += characters[i - 1];
      const right = token.slice(left.length);
      const [leftId, rightId] = [ids.get(left), ids.get(right)];
      if (leftId === undefined || rightId === undefined) continue;
      merges.push({ pair: [left, right], score: scores[id], left: i, right: characters.length - i, order: leftId });
    }
    if (merges.length > most)
      throw fail(`more than ${most} merges for ${ids.size} tokens`, "the merges of a vocabulary");
  }
  merges.sort((a, b) => b.score - a.score || b.left - a.left || b.right - a.right || a.order - b.order);
  return merges.map(({ pair }) => pair);
}
