import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { bleu, bleuCounts, bleuSignature } from "./bleu.js";
import { chrf, chrfCounts } from "./chrf.js";
import { macroF1, matthewsCorrelation } from "./classification.js";
import { answerF1, answersMatch, rouge } from "./overlap.js";

const golden = JSON.parse(readFileSync(new URL("../../../test/golden/text-metrics.json", import.meta.url), "utf8"));
const pairs: { hypothesis: string; reference: string }[] = golden.rows;
const close = 5;

test.each(pairs.map((pair, i) => ({ ...pair, i })))("$hypothesis", ({ hypothesis, reference, i }) => {
  const wanted = golden.rows[i];
  expect(answersMatch(hypothesis, reference)).toBe(wanted.em === 1);
  expect(answerF1(hypothesis, reference)).toBeCloseTo(wanted.f1, close);
  for (const type of ["rouge1", "rouge2", "rougeL"] as const) {
    const { precision, recall, f1 } = rouge(type, hypothesis, reference);
    expect([precision, recall, f1].map((value) => value.toFixed(4))).toEqual(
      [wanted[type].p, wanted[type].r, wanted[type].f].map((value: number) => value.toFixed(4)),
    );
  }
  expect(bleu([bleuCounts(hypothesis, [reference])], { effectiveOrder: true })).toBeCloseTo(
    wanted.sentence_bleu,
    close,
  );
  expect(chrf([chrfCounts(hypothesis, [reference])])).toBeCloseTo(wanted.chrf, close);
});

test("BLEU and chrF of all texts together", () => {
  const counts = pairs.map(({ hypothesis, reference }) => bleuCounts(hypothesis, [reference]));
  expect(bleu(counts)).toBeCloseTo(golden.corpus_bleu.score, close);
  expect(golden.corpus_bleu.signature).toMatch(bleuSignature(1));
  const lower = pairs.map(({ hypothesis, reference }) =>
    bleuCounts(hypothesis.toLowerCase(), [reference.toLowerCase()]),
  );
  expect(bleu(lower)).toBeCloseTo(golden.corpus_bleu_lowercase, close);
  expect(chrf(pairs.map(({ hypothesis, reference }) => chrfCounts(hypothesis, [reference])))).toBeCloseTo(
    golden.corpus_chrf,
    close,
  );
});

test("macro F1 and Matthews' correlation of three classes", () => {
  // Confusion: class 0 is right twice and once taken for 1, class 1 right once, class 2 always taken for 0.
  const labels = { gold: [0, 0, 0, 1, 2], predicted: [0, 0, 1, 1, 0] };
  const all = [0, 1, 2, 3, 4];
  expect(macroF1(labels, all)).toBeCloseTo((2 / 3 + 2 / 3 + 0) / 3, 12);
  expect(matthewsCorrelation(labels, all)).toBeCloseTo(
    (3 * 5 - (3 * 3 + 1 * 2)) / Math.sqrt((25 - 11) * (25 - 13)),
    12,
  );
  expect(matthewsCorrelation({ gold: [1, 1], predicted: [1, 0] }, [0, 1])).toBe(0);
});
