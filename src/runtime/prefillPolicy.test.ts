import { expect, test } from "vitest";
import { UsageError } from "../core/index.js";
import { sparseFromPosition } from "./prefillPolicy.js";

test.each([
  ["dense", 7, 7],
  ["secondHalf", 8, 4],
  // The first T − ⌊T/2⌋ tokens stay dense.
  ["secondHalf", 7, 4],
  ["secondHalf", 1, 1],
  [{ denseFirst: 0 }, 7, 0],
  [{ denseFirst: 4 }, 7, 4],
] as const)("%j of %i prompt tokens is sparse from position %i", (policy, length, position) => {
  expect(sparseFromPosition(policy, length)).toBe(position);
});

test("a negative or fractional number of dense tokens is refused", () => {
  expect(() => sparseFromPosition({ denseFirst: -1 }, 7)).toThrow(UsageError);
  expect(() => sparseFromPosition({ denseFirst: 1.5 }, 7)).toThrow(UsageError);
});
