import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BoundedPattern, type WorkCounter } from "./boundedPattern.js";

const uncounted: WorkCounter = { steps: () => {}, growth: () => {} };
const bounded = (source: string, counter = uncounted) => new BoundedPattern(new RegExp(source, "gu"), "gu", counter);
const splitsOf = (text: string, pattern: RegExp) =>
  Array.from(text.matchAll(pattern), ({ 0: found, index }) => [index, found]);

const patterns = [
  "'s|'t| ?\\p{L}+| ?\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{M}]*[\\p{Ll}\\p{M}]+(?:'[sS])?|\\p{N}|.",
  "(?:(?<!\\w)(?=\\w)|(?<=\\w)(?!\\w))",
  "(?<=ab|\\u{1F600}b)a+?b{2,}|(?<!a)b",
  "(a*)*b|(?:a|b|ab)*?c",
  "(?:(?=(?:[a-z]|\\p{Lu}))[\\s\\S])+",
  "(?<name>x{0,3}){2}y?|\\/|[\\]\\\\/^-]",
  "",
];

describe("patterns in counted steps", () => {
  it.each(patterns)("%s finds what V8 finds", (source) => {
    const native = new RegExp(source, "gu");
    const unit = fc.constantFrom(..."aabbcxy /]AZ1 \n\r'sé\u0301\\^-", "\u{1F600}", "\ud83d");
    fc.assert(
      fc.property(fc.string({ unit, maxLength: 40 }), (text) => {
        expect(splitsOf(text, bounded(source))).toEqual(splitsOf(text, native));
        expect(text.match(bounded(source))).toEqual(text.match(native));
        expect(text.replaceAll(bounded(source), "_")).toBe(text.replaceAll(native, "_"));
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it("splits like V8, groups left out", () => {
    expect("1a22b".split(bounded("(\\d)+"))).toEqual(["", "a", "b"]);
  });

  it("puts in what stands there", () => {
    expect("a-b".replaceAll(bounded("-"), "$&$1")).toBe("a$&$1b");
  });

  it("counts steps and growth", () => {
    const counts = { steps: 0, growth: 0 };
    const counter = {
      steps: (count: number) => {
        counts.steps += count;
        if (counts.steps > 1_000_000) throw new Error("too much");
      },
      growth: (characters: number) => {
        counts.growth += characters;
      },
    };
    expect("aa".replaceAll(bounded("a", counter), "bcd")).toBe("bcdbcd");
    expect(counts.growth).toBe(4);
    expect(() => `${"a".repeat(60)}!`.match(bounded("(a+)+$".replace("$", "(?![\\s\\S])"), counter))).toThrow(
      "too much",
    );
  });

  it.each(["(a)\\1", "(?<n>a)\\k<n>"])("%s is refused", (source) => {
    expect(() => bounded(source)).toThrow(SyntaxError);
  });

  it.each([`(?:${"(?:a{100}){100}".repeat(3)})`, `${"(?:".repeat(100)}a${")".repeat(100)}`])(
    "a pattern that grows is refused",
    (source) => {
      expect(() => bounded(source)).toThrow(/more than/);
    },
  );
});
