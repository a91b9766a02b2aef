import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { memoryFiles } from "../io/index.js";
import { loadTokenizer } from "./tokenizer.js";

const vocab = Object.fromEntries([..."ab! éÃ©Â"].map((character, id) => [character, id]));
const plain = {
  version: "1.0",
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: { type: "BPE", vocab, merges: [] },
};
const load = (parts: object) =>
  loadTokenizer(
    memoryFiles("m", new Map([["tokenizer.json", new TextEncoder().encode(JSON.stringify({ ...plain, ...parts }))]])),
  );
const errorOf = async (work: () => unknown): Promise<FormatError> => {
  const error = await Promise.resolve()
    .then(work)
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(FormatError);
  return error as FormatError;
};

const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const replace = (pattern: object, content: string) => ({ type: "Replace", pattern, content });
const times = (count: number, step: object) => Array.from({ length: count }, () => step);
const twice = replace({ String: "a" }, "aa");
const backtracking = "(a+)+$";
const aaa = `${"a".repeat(60)}!`;

describe("work of a tokenizer", () => {
  it.each([
    ["pre_tokenizer", "pre_tokenizer.pattern", split(backtracking)],
    [
      "normalizer",
      "normalizer.normalizers.1",
      { type: "Sequence", normalizers: [{ type: "NFC" }, replace({ Regex: backtracking }, "")] },
    ],
    ["pre_tokenizer", "pre_tokenizer.pattern", split("(?:a|a)*(?:a|a)*(?:a|a)*(?:a|a)*b")],
    ["pre_tokenizer", "pre_tokenizer.pattern", split("a*a*a*a*a*a*a*a*b")],
  ])("a pattern of the %s that goes back without end", async (part, field, step) => {
    const tokenizer = await load({ [part]: step });
    expect([...tokenizer.encode("aab!")]).toEqual([0, 0, 1, 2]);
    const { message } = await errorOf(() => tokenizer.encode(aaa.repeat(part === "normalizer" ? 1 : 2)));
    expect(message).toContain(`tokenizer.json`);
    expect(message).toContain(field.replace(/\.pattern$/, ""));
    expect(message).toContain("steps of matching");
  });

  it("quadratic patterns on long texts", async () => {
    const tokenizer = await load({ normalizer: replace({ Regex: " +$" }, "") });
    expect(tokenizer.encode(`a${" ".repeat(1000)}`).length).toBe(1);
    const { message } = await errorOf(() => tokenizer.encode(`${" ".repeat(20_000)}a`));
    expect(message).toContain("steps of matching");
  });

  it("a pattern that an added token is normalised with", async () => {
    const added = { id: 9, content: aaa, special: false, normalized: true };
    const { message } = await errorOf(() =>
      load({ normalizer: replace({ Regex: backtracking }, ""), added_tokens: [added] }),
    );
    expect(message).toContain("steps of matching");
  });

  it.each([
    ["normalizer", { type: "Sequence", normalizers: times(22, twice) }, "a"],
    ["normalizer", { type: "Sequence", normalizers: times(22, replace({ Regex: "a" }, "aa")) }, "a"],
    ["normalizer", replace({ String: "a" }, "a".repeat(200)), "a".repeat(5000)],
    ["pre_tokenizer", { type: "Sequence", pretokenizers: times(30, { type: "ByteLevel", use_regex: false }) }, "é"],
    ["pre_tokenizer", { type: "Sequence", pretokenizers: times(40, replace({ String: "a" }, "aa")) }, "a"],
    [
      "post_processor",
      {
        type: "Sequence",
        processors: times(40, {
          type: "TemplateProcessing",
          single: times(2, { Sequence: { id: "A", type_id: 0 } }),
          pair: [],
          special_tokens: {},
        }),
      },
      "a",
    ],
  ])("a %s whose steps make a text grow", async (part, step, text) => {
    const tokenizer = await load({ [part]: step });
    const { message } = await errorOf(() => tokenizer.encode(text));
    expect(message).toMatch(new RegExp(`${part}.*that were not in it`));
  });

  it.each([twice, { type: "BPEDecoder", suffix: "" }])("decoders that make a text grow", async (step) => {
    const tokenizer = await load({ decoder: { type: "Sequence", decoders: times(40, step) } });
    const { message } = await errorOf(() => tokenizer.decode([0, 0, 0]));
    expect(message).toMatch(/decoder\.decoders\.\d+.*that were not in it/);
  });

  it("what published tokenizers do is within the bounds", async () => {
    const text = `${"The cat's 123 hats\n\n\tsat… 北京 é ".repeat(2000)}${" ".repeat(5000)}a${"a".repeat(5000)}`;
    const unlisted =
      "(?i:'s|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,2}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    for (const regex of [unlisted, "\\s+|\\S+", "\\b\\w+\\b|[^\\w]", "[\\p{Han}]+|[\\p{L}&&[^\\p{Han}]]+|[^\\p{L}]+"]) {
      const tokenizer = await load({ pre_tokenizer: { type: "Sequence", pretokenizers: [split(regex)] } });
      expect(tokenizer.encode(text).length, regex).toBeGreaterThan(5000);
    }
  });

  it.each([
    [{ pre_tokenizer: split("(a)\\1") }, "pre_tokenizer.pattern"],
    [{ pre_tokenizer: split("a".repeat(20_000)) }, "pre_tokenizer.pattern"],
    [{ pre_tokenizer: { type: "FixedLength", length: 0 } }, "pre_tokenizer.length"],
    [{ normalizer: replace({ String: "a" }, "a".repeat(1000)) }, "normalizer.content"],
    [{ decoder: { type: "Sequence", decoders: times(1000, { type: "Fuse" }) } }, "decoder"],
  ])("%# is refused when it is loaded, by %s", async (parts, field) => {
    const { message } = await errorOf(() => load(parts));
    expect(message).toContain("tokenizer.json");
    expect(message).toContain(field);
  });
});
