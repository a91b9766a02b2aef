const maxOrder = 4;

/** What BLEU keeps of a text and its references; of several texts it is added up. */
export interface BleuCounts {
  hypothesisWords: number;
  referenceWords: number;
  /** By order less one: n-grams, and those that a reference has too. */
  total: readonly number[];
  correct: readonly number[];
}

/** Words in the way of mteval-v13a, which sacrebleu calls 13a. */
function words13a(text: string): string[] {
  const plain = text
    .trimEnd()
    .replaceAll("<skipped>", "")
    .replaceAll("-\n", "")
    .replaceAll("\n", " ")
    .replaceAll("&quot;", '"')
    .replaceAll("&amp;", "&")
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">");
  return ` ${plain} `
    .replace(/([{-~[-` -&(-+:-@/])/g, " $1 ")
    .replace(/([^0-9])([.,])/g, "$1 $2 ")
    .replace(/([.,])([^0-9])/g, " $1 $2")
    .replace(/([0-9])(-)/g, "$1 $2 ")
    .split(/\s+/)
    .filter(Boolean);
}

function gramsOf(words: readonly string[], order: number): Map<string, number> {
  const grams = new Map<string, number>();
  for (let i = 0; i + order <= words.length; i++) {
    const gram = words.slice(i, i + order).join(" ");
    grams.set(gram, (grams.get(gram) ?? 0) + 1);
  }
  return grams;
}

/** Counts of one text against its references. */
export function bleuCounts(hypothesis: string, references: readonly string[]): BleuCounts {
  const words = words13a(hypothesis);
  const others = references.map(words13a);
  const [nearest] = others
    .map(({ length }) => length)
    .sort((a, b) => Math.abs(a - words.length) - Math.abs(b - words.length) || a - b);
  const correct: number[] = [];
  const total: number[] = [];
  for (let order = 1; order <= maxOrder; order++) {
    const grams = others.map((other) => gramsOf(other, order));
    let matches = 0;
    for (const [gram, count] of gramsOf(words, order)) {
      matches += Math.min(count, Math.max(0, ...grams.map((each) => each.get(gram) ?? 0)));
    }
    correct.push(matches);
    total.push(Math.max(0, words.length - order + 1));
  }
  return { hypothesisWords: words.length, referenceWords: nearest ?? 0, total, correct };
}

/** How sacrebleu names what `bleu` computes. */
export const bleuSignature = (references: number): string => `nrefs:${references}|case:mixed|eff:no|tok:13a|smooth:exp`;

/**
 * BLEU in 0 … 100 (Papineni et al., 2002) of all texts together, as sacrebleu computes it by default: words by mteval-13a, case
 * kept, orders without a match smoothed exponentially.
 * @param effectiveOrder leaves out orders for which the text is too short, as for single sentences
 */
export function bleu(counts: readonly BleuCounts[], { effectiveOrder = false } = {}): number {
  const sum = (of: (one: BleuCounts) => number) => counts.reduce((all, one) => all + of(one), 0);
  const [words, referenceWords] = [sum((one) => one.hypothesisWords), sum((one) => one.referenceWords)];
  const orders = Array.from({ length: maxOrder }, (_, n) => ({
    correct: sum((one) => one.correct[n]),
    total: sum((one) => one.total[n]),
  }));
  if (orders.every(({ correct }) => correct === 0)) return 0;
  let smoothing = 1;
  let logs = 0;
  let used = 0;
  for (const { correct, total } of orders) {
    if (total === 0) {
      if (!effectiveOrder) return 0;
      break;
    }
    used++;
    if (correct === 0) smoothing *= 2;
    logs += Math.log(correct === 0 ? 1 / (smoothing * total) : correct / total);
  }
  const brevity = words >= referenceWords ? 1 : words === 0 ? 0 : Math.exp(1 - referenceWords / words);
  return 100 * brevity * Math.exp(logs / used);
}
