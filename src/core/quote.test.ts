import { expect, it } from "vitest";
import { FormatError, ProblemsError, RarefyError } from "./errors.js";
import { quote } from "./quote.js";

const deep = JSON.parse("[".repeat(5_000) + "]".repeat(5_000));

it("quotes any value in few characters, however deep or wide", () => {
  expect(quote({ a: [1, "b", null], c: true })).toBe('{"a":[1,"b",null],"c":true}');
  expect(quote(undefined)).toBe("missing");
  expect(quote(deep)).toBe("[[[[…]]]]");
  expect(quote("x".repeat(1e6)).length).toBeLessThan(90);
  expect(quote(Array(1e6).fill({ toString: 1 })).length).toBeLessThan(90);
});

it("messages hold no control characters and have a bound", () => {
  const error = new FormatError({
    file: "f\u001b[2J",
    field: "a\nb\u0007",
    problem: "p\u202e".repeat(1000),
    hint: "h",
  });
  expect(error.message).toMatch(/^f\\u001b\[2J: a\\nb\\u0007: p\\u202ep/);
  expect(error.message.length).toBeLessThan(500);
  expect(new RarefyError("x\u009b\u001b]0;title\n".repeat(1e5)).message).toMatch(
    /^(?:x\\u009b\\u001b\]0;title\n){300,}.{0,40}…$/s,
  );
});

it("a list of problems names the first and counts the others", () => {
  const problems = Array.from({ length: 100_000 }, (_, i) => `tensor ${i} is missing`);
  const error = new ProblemsError("m: it does not fit", problems);
  expect(error.problems).toHaveLength(100_000);
  expect(error.message.split("\n")).toHaveLength(32);
  expect(error.message).toMatch(/tensor 29 is missing\n {2}… and 99970 more$/);
});
