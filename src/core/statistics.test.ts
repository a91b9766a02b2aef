import { expect, test } from "vitest";
import { meanAndDeviation, median, spread } from "./statistics.js";

test("mean and sample standard deviation", () => {
  expect(meanAndDeviation([2, 4, 4, 4, 5, 5, 7, 9]).deviation).toBeCloseTo(2.138, 3);
  expect(spread([1, 2, 3], 1)).toBe("2.0 ± 1.0");
  expect(spread([1], 2)).toBe("1.00");
  expect(spread([], 2)).toBe("–");
});

test("the median of an even number is between the middle two", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(median([])).toBeNaN();
});
