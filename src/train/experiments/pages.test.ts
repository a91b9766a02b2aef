import { expect, test } from "vitest";
import { markdownTable } from "./pages.js";
import { meanAndDeviation, spread } from "./statistics.js";

test("mean and sample standard deviation", () => {
  expect(meanAndDeviation([2, 4, 4, 4, 5, 5, 7, 9]).deviation).toBeCloseTo(2.138, 3);
  expect(spread([1, 2, 3], 1)).toBe("2.0 ± 1.0");
  expect(spread([1], 2)).toBe("1.00");
  expect(spread([], 2)).toBe("–");
});

test("bars in cells do not break a Markdown table", () => {
  expect(markdownTable({ title: "t", columns: ["a", "b"], rows: [["x|y", "1"]] })).toBe(
    "| a | b |\n| --- | ---: |\n| x\\|y | 1 |",
  );
});
