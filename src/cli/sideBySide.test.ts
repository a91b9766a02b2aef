import { expect, test } from "vitest";
import { sideBySide, wrap } from "./sideBySide.js";

test("wraps at spaces, keeps line breaks, cuts words that are too long", () => {
  expect(wrap("one two three\n\nabcdefghijkl", 8)).toEqual(["one two", "three", "", "abcdefgh", "ijkl"]);
});

test("columns keep their width whatever the length of their text", () => {
  expect(
    sideBySide(
      [
        { title: "dense", text: "a b c d e f" },
        { title: "sparse", text: "x" },
      ],
      11,
    ).split("\n"),
  ).toEqual(["dens │ spar", "─────┼─────", "a b  │ x", "c d  │", "e f  │"]);
});
