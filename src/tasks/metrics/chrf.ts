const orders = 6;
/** How many times recall counts as much as precision. */
const beta = 2;

/** N-grams of characters by order less one: of the text, of its reference, and those in both. */
export interface ChrfCounts {
  hypothesis: readonly number[];
  reference: readonly number[];
  common: readonly number[];
}

function gramsOf(characters: readonly string[], order: number): Map<string, number> {
  const grams = new Map<string, number>();
  for (let i = 0; i + order <= characters.length; i++) {
    const gram = characters.slice(i, i + order).join("");
    grams.set(gram, (grams.get(gram) ?? 0) + 1);
  }
  return grams;
}

function countsAgainst(hypothesis: string, reference: string): ChrfCounts {
  const [a, b] = [hypothesis, reference].map((text) => Array.from(text.replace(/\s+/g, "")));
  const counts = { hypothesis: [] as number[], reference: [] as number[], common: [] as number[] };
  for (let order = 1; order <= orders; order++) {
    const [x, y] = [gramsOf(a, order), gramsOf(b, order)];
    let common = 0;
    for (const [gram, count] of x) common += Math.min(count, y.get(gram) ?? 0);
    const referenceCount = Math.max(0, b.length - order + 1);
    // N-grams of an order that the reference is too short for are neither right nor wrong.
    counts.hypothesis.push(referenceCount === 0 ? 0 : Math.max(0, a.length - order + 1));
    counts.reference.push(referenceCount);
    counts.common.push(common);
  }
  return counts;
}

/** Counts of one text against the reference that it is nearest to. */
export function chrfCounts(hypothesis: string, references: readonly string[]): ChrfCounts {
  const each = references.map((reference) => countsAgainst(hypothesis, reference));
  return each.reduce((best, one) => (chrf([one]) > chrf([best]) ? one : best));
}

/** chrF in 0 … 100 (Popović, 2015) of all texts together, as sacrebleu computes it by default: n-grams of 1 to 6 characters, β = 2. */
export function chrf(counts: readonly ChrfCounts[]): number {
  let [precision, recall, used] = [0, 0, 0];
  for (let n = 0; n < orders; n++) {
    const sum = (part: keyof ChrfCounts) => counts.reduce((all, one) => all + one[part][n], 0);
    const [hypothesis, reference, common] = [sum("hypothesis"), sum("reference"), sum("common")];
    if (hypothesis === 0 || reference === 0) continue;
    precision += common / hypothesis;
    recall += common / reference;
    used++;
  }
  if (precision + recall === 0) return 0;
  const factor = beta ** 2;
  return (100 * (1 + factor) * precision * recall) / used / (factor * precision + recall);
}
