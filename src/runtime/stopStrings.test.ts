import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "../core/index.js";
import { StopStrings } from "./stopStrings.js";

function run(strings: readonly string[], pieces: readonly string[]) {
  const stop = new StopStrings(strings);
  const passed = pieces.map((piece) => stop.push(piece));
  return { passed, rest: stop.flush(), stopped: stop.stopped };
}

describe("StopStrings", () => {
  test("holds back what may become a stop string, and drops it when it does", () => {
    expect(run(["</end>"], ["a <", "/en", "d> b"])).toEqual({ passed: ["a ", "", ""], rest: "", stopped: true });
    expect(run(["</end>"], ["a <", "/en", "try"])).toEqual({ passed: ["a ", "", "</entry"], rest: "", stopped: false });
    expect(run(["</end>"], ["a </e"])).toEqual({ passed: ["a "], rest: "</e", stopped: false });
  });

  test("a stop string that begins inside a failed one is still found", () => {
    expect(run(["aab"], ["a", "a", "a", "b!"])).toEqual({ passed: ["", "", "a", ""], rest: "", stopped: true });
  });

  test("of several, the one that is complete first decides, then the longest", () => {
    expect(run(["cd", "bc"], ["abcd"]).passed).toEqual(["a"]);
    expect(run(["acab", "c"], ["acab"]).passed).toEqual(["a"]);
    expect(run(["c", "bc"], ["abc"]).passed).toEqual(["a"]);
  });

  test("however the text is cut, exactly what is before the stop string that ends first passes", () => {
    const letters = fc.string({ unit: fc.constantFrom("a", "b", "c"), maxLength: 4 });
    const cases = fc.record({
      pieces: fc.array(letters, { maxLength: 12 }),
      strings: fc.array(
        letters.filter((s) => s !== ""),
        { maxLength: 3 },
      ),
    });
    fc.assert(
      fc.property(cases, ({ pieces, strings }) => {
        const text = pieces.join("");
        // The shortest beginning of the text that ends with a stop string.
        const ends = [...text].map((_, i) => text.slice(0, i + 1));
        const full = ends.find((start) => strings.some((stop) => start.endsWith(stop)));
        const cut = Math.max(...strings.filter((stop) => full?.endsWith(stop)).map((stop) => stop.length));
        const { passed, rest, stopped } = run(strings, pieces);
        expect(stopped).toBe(full !== undefined);
        expect(passed.join("") + rest).toBe(full === undefined ? text : full.slice(0, full.length - cut));
        const longest = Math.max(0, ...strings.map((s) => s.length));
        expect(rest.length).toBeLessThan(Math.max(1, longest));
      }),
      { numRuns: 1000 },
    );
  });

  test("refuses an empty stop string", () => {
    expect(() => new StopStrings(["x", ""])).toThrow(UsageError);
  });
});
