import { expect, it } from "vitest";
import { blockOutputError } from "./blockError.js";

it("is the mean over channels of the L2 norm along tokens", () => {
  // Channel 0 deviates by 3 and 4, channel 1 by 0 and 1: norms 5 and 1.
  const reference = new Float32Array([1, 2, 3, 4]);
  expect(blockOutputError(new Float32Array([4, 2, 7, 5]), reference, 2)).toBe(3);
  expect(blockOutputError(reference, reference, 2)).toBe(0);
});
