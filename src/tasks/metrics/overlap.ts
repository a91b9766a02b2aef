/** Precision, recall and their harmonic mean. */
export interface Overlap {
  precision: number;
  recall: number;
  f1: number;
}

const overlapOf = (common: number, hypothesis: number, reference: number): Overlap => {
  const precision = hypothesis === 0 ? 0 : common / hypothesis;
  const recall = reference === 0 ? 0 : common / reference;
  return { precision, recall, f1: common === 0 ? 0 : (2 * precision * recall) / (precision + recall) };
};

/** How many items two bags have in common. */
function commonCount(a: readonly string[], b: readonly string[]): number {
  const left = new Map<string, number>();
  for (const item of b) left.set(item, (left.get(item) ?? 0) + 1);
  let common = 0;
  for (const item of a) {
    const count = left.get(item) ?? 0;
    if (count === 0) continue;
    common++;
    left.set(item, count - 1);
  }
  return common;
}

/** An answer as SQuAD compares it: lower case, without ASCII punctuation and the words a, an, the; blanks collapsed. */
export const normalizedAnswer = (text: string): string =>
  text
    .toLowerCase()
    .replace(/[!-/:-@[-`{-~]/g, "")
    .replace(/\b(?:a|an|the)\b/g, " ")
    .trim()
    .split(/\s+/)
    .join(" ");

/** Whether two answers are the same as SQuAD compares them (Rajpurkar et al., 2016). */
export const answersMatch = (hypothesis: string, reference: string): boolean =>
  normalizedAnswer(hypothesis) === normalizedAnswer(reference);

/** F1 over the words that two answers have in common, as SQuAD counts them; 1 where neither has any. */
export function answerF1(hypothesis: string, reference: string): number {
  const [a, b] = [hypothesis, reference].map((text) => normalizedAnswer(text).split(" ").filter(Boolean));
  if (a.length === 0 || b.length === 0) return a.length === b.length ? 1 : 0;
  return overlapOf(commonCount(a, b), a.length, b.length).f1;
}

/** What ROUGE (Lin, 2004) is computed over: n-grams, or the longest common subsequence. */
export type RougeType = "rouge1" | "rouge2" | "rougeL";

/** ROUGE of a text against a reference: lower case, words of a–z and 0–9, no stemming. */
export function rouge(type: RougeType, hypothesis: string, reference: string): Overlap {
  const [a, b] = [hypothesis, reference].map((text) =>
    text
      .toLowerCase()
      .split(/[^a-z0-9]+/)
      .filter(Boolean),
  );
  if (type === "rougeL") return overlapOf(longestCommon(a, b), a.length, b.length);
  const grams = (words: readonly string[]) =>
    type === "rouge1" ? words : words.slice(1).map((word, i) => `${words[i]} ${word}`);
  const [x, y] = [grams(a), grams(b)];
  return overlapOf(commonCount(x, y), x.length, y.length);
}

/** Length of the longest common subsequence. */
function longestCommon(a: readonly string[], b: readonly string[]): number {
  let row = new Uint32Array(b.length + 1);
  for (const item of a) {
    const next = new Uint32Array(b.length + 1);
    for (let j = 0; j < b.length; j++) next[j + 1] = item === b[j] ? row[j] + 1 : Math.max(row[j + 1], next[j]);
    row = next;
  }
  return row[b.length];
}
