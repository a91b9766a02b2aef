import { expect, test } from "vitest";
import { bytes, count, digits, duration, facts, percent, printable, table } from "./format.js";

test("durations", () => {
  expect([0, 7_499, 59_500, 3_723_000, -5].map(duration)).toEqual(["0:00", "0:07", "1:00", "1:02:03", "0:00"]);
});

test("sizes in decimal units with three digits", () => {
  expect([0, 999, 1000, 13_050_000, 999_600, 4_046_000_000].map(bytes)).toEqual([
    "0 B",
    "999 B",
    "1.00 kB",
    "13.1 MB",
    "1.00 MB",
    "4.05 GB",
  ]);
});

test("counts of parameters", () => {
  expect([704, 8192, 6_520_000, 999_700_000, 7e9].map(count)).toEqual(["704", "8.19 k", "6.52 M", "1.00 B", "7.00 B"]);
});

test("significant digits without an exponent", () => {
  expect([37.5269, 0.031234, 1201.4, 0, Number.POSITIVE_INFINITY].map((x) => digits(x, 3))).toEqual([
    "37.5",
    "0.0312",
    "1201",
    "0",
    "Infinity",
  ]);
  expect(percent(0.5)).toBe("50 %");
});

test("control characters of untrusted names are shown, not obeyed", () => {
  expect(printable("a\u001b[2Jb\nc\u009b")).toBe("a\\u001b[2Jb\\u000ac\\u009b");
});

test("a table aligns numbers right and words left, and sets short headings on the rule", () => {
  const text = table(
    [
      { title: "weights", cell: (r: { w: string; t: number }) => r.w, align: "left" },
      { title: "decode\ntokens/s", cell: (r) => String(r.t) },
    ],
    [
      { w: "q8", t: 5 },
      { w: "bf16", t: 120 },
    ],
  );
  expect(text.split("\n")).toEqual([
    "           decode",
    "weights  tokens/s",
    "───────  ────────",
    "q8              5",
    "bf16          120",
  ]);
});

test("facts line up their values", () => {
  expect(
    facts([
      ["layers", "6"],
      ["vocabulary", "8192"],
    ]),
  ).toBe("layers      6\nvocabulary  8192");
});
