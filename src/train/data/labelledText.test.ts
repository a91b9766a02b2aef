import { expect, test } from "vitest";
import { classificationData, parseLabelledText, Vocabulary } from "./labelledText.js";

const tsv = "label\ttext\ngood\tA fine, fine film .\nbad\tA film\twith a tab\n";

test("rows keep what follows the first tab", () => {
  expect(parseLabelledText(tsv, "x.tsv")).toEqual([
    { label: "good", text: "A fine, fine film ." },
    { label: "bad", text: "A film\twith a tab" },
  ]);
});

test.each([
  ["no header", "good\ttext\n", /not the header/],
  ["no tab", "label\ttext\ngood text\n", /line 2: no label/],
])("%s is a FormatError", (_name, content, message) => {
  expect(() => parseLabelledText(content, "x.tsv")).toThrow(message);
});

test("common words get ids by count, others 1, short texts are filled with 0", () => {
  const rows = parseLabelledText(tsv, "x.tsv");
  const vocabulary = new Vocabulary(
    rows.map(({ text }) => text),
    10,
  );
  // a 3 times; film and fine twice, in alphabetical order.
  expect(vocabulary.size).toBe(5);
  expect([...vocabulary.encode("a fine FILM indeed", 6)]).toEqual([2, 4, 3, 1, 0, 0]);
  const data = classificationData(rows, ["good", "bad"], vocabulary, 3, "x.tsv");
  expect([...data.label.values]).toEqual([0, 1]);
  expect([...data.tokens.values]).toEqual([2, 4, 1, 2, 3, 1]);
  expect(() => classificationData(rows, ["good"], vocabulary, 3, "x.tsv")).toThrow(/"bad"/);
});
