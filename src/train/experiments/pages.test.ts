import { expect, test } from "vitest";
import { markdownTable } from "./pages.js";

test("bars in cells do not break a Markdown table", () => {
  expect(markdownTable({ title: "t", columns: ["a", "b"], rows: [["x|y", "1"]] })).toBe(
    "| a | b |\n| --- | ---: |\n| x\\|y | 1 |",
  );
});
