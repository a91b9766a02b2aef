import { expect, test } from "vitest";
import { busyNanoseconds } from "./passTimer.js";

test("spans that overlap count once, in any order", () => {
  expect(busyNanoseconds([])).toBe(0);
  const spans = [
    [50n, 60n],
    [10n, 20n],
    [15n, 30n],
    [16n, 18n],
  ] as const;
  expect(busyNanoseconds(spans)).toBe(20 + 10);
});
