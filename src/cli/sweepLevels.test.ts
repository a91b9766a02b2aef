import { describe, expect, test } from "vitest";
import { parseLevels } from "./sweepLevels.js";

describe("levels of a sweep", () => {
  test.each([
    ["0.3..0.8", [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]],
    ["0.5..0.6/.05", [0.5, 0.55, 0.6]],
    ["0..0.1", [0, 0.1]],
    ["0.5", [0.5]],
    ["0.7,2:4, 0", [0.7, { keep: 2, group: 4 }, 0]],
  ])("%s", (text, expected) => {
    expect(parseLevels(text)).toEqual(expected);
  });

  test.each(["", "1", "0.3..", "0.8..0.3", "0.1..0.9/0.00001", "-0.5", "a", "0.5,,0.6", "1:2:3"])(
    "%s is refused",
    (text) => {
      expect(() => parseLevels(text)).toThrow(/Give/);
    },
  );
});
