import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { matchesGlob } from "./glob.js";

describe("tensor name patterns", () => {
  const name = "model.layers.10.self_attn.q_proj.weight";
  it.each([
    [name, true],
    ["**", true],
    ["model.layers.*.self_attn.*_proj.weight", true],
    ["**.layers.**_proj.weight", true],
    ["model.layers.1*.**", true],
    ["**.q_proj.*", true],
    ["*", false],
    ["model.layers.*.q_proj.weight", false],
    ["model.layers.1.**", false],
    ["**q_proj", false],
    ["model.layers.?0.**", false],
    ["", false],
  ])("%s: %s", (pattern, expected) => {
    expect(matchesGlob(pattern, name)).toBe(expected);
  });

  it("equals the regular expression it stands for", () => {
    const text = fc.string({ unit: fc.constantFrom("a", "b", ".", "*", "+"), maxLength: 8 });
    fc.assert(
      fc.property(text, text, (pattern, name) => {
        const source = pattern.replace(/\*\*|\*|[.+]/g, (t) => ({ "**": "[^]*", "*": "[^.]*" })[t] ?? `\\${t}`);
        expect(matchesGlob(pattern, name)).toBe(new RegExp(`^${source}$`).test(name));
      }),
    );
  });

  it("takes no long time on a pattern made to be slow", () => {
    const start = process.cpuUsage();
    expect(matchesGlob(`${"**a".repeat(80)}b`, "a".repeat(1000))).toBe(false);
    expect(process.cpuUsage(start).user / 1e6).toBeLessThan(2);
  });
});
