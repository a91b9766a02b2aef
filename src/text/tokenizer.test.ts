import { readFile } from "node:fs/promises";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { memoryFiles } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { loadTokenizer } from "./tokenizer.js";

const model = new URL("../../models/tiny-6m", import.meta.url).pathname;
const evalText = new URL("../../models/text/books-eval.txt", import.meta.url).pathname;

// First 64 tokens of books-eval.txt by Hugging Face tokenizers (Rust).
const golden = [
  867, 452, 807, 3684, 293, 730, 943, 85, 506, 432, 303, 3565, 68, 1048, 33, 201, 4165, 343, 424, 432, 1792, 85, 281,
  263, 6527, 33, 201, 747, 660, 466, 400, 876, 665, 341, 441, 33, 201, 45, 39, 50, 46, 1509, 863, 410, 3342, 293, 383,
  488, 1113, 298, 300, 91, 281, 363, 516, 4377, 4, 11, 201, 201, 36, 49, 49, 45,
];

describe("tokenizer of tiny-6m", async () => {
  const tokenizer = await loadTokenizer(directoryFiles(model));
  const text = await readFile(evalText, "utf8");

  it("gives the reference ids", () => {
    expect([...tokenizer.encode(text.slice(0, 2000)).subarray(0, 64)]).toEqual(golden);
  });

  it("encodes a whole book file and decodes it back", () => {
    const ids = tokenizer.encode(text);
    expect(ids.length).toBe(322_013);
    expect(tokenizer.decode(ids)).toBe(text);
  });

  it("returns any text unchanged", () => {
    fc.assert(
      fc.property(fc.string({ unit: "grapheme", maxLength: 200 }), (sample) => {
        expect(tokenizer.decode(tokenizer.encode(sample))).toBe(sample);
      }),
      { seed: 1, numRuns: 300 },
    );
  });

  it("knows its vocabulary and special tokens", () => {
    expect(tokenizer.vocabSize).toBe(8192);
    expect([...tokenizer.specialIds]).toEqual([0, 1, 2]);
    expect(tokenizer.idOf("<|im_end|>")).toBe(2);
    expect(tokenizer.tokenOf(2)).toBe("<|im_end|>");
    expect(tokenizer.idOf("no such token")).toBeUndefined();
    expect([...tokenizer.encode("<|im_start|>x")]).toEqual([1, 90]);
    expect(tokenizer.decode([1, 90, 2])).toBe("<|im_start|>x<|im_end|>");
    expect(tokenizer.decode([1, 90, 2], { skipSpecialTokens: true })).toBe("x");
  });

  it("gives no text for no ids and for unknown ids", () => {
    expect(tokenizer.decode([])).toBe("");
    expect(tokenizer.decode([9999, 90, 8192])).toBe("x");
    expect(tokenizer.encode("").length).toBe(0);
  });
});

describe("broken tokenizer files", () => {
  const load = (definition: unknown) =>
    loadTokenizer(
      memoryFiles("m", new Map([["tokenizer.json", new TextEncoder().encode(JSON.stringify(definition))]])),
    );
  const bpe = (vocab: unknown, extra: object = {}) => ({
    model: { type: "BPE", vocab, merges: [] },
    decoder: null,
    post_processor: null,
    pre_tokenizer: null,
    normalizer: null,
    added_tokens: [],
    ...extra,
  });

  it.each([
    ["no model", {}],
    ["an array", []],
    ["a string id", bpe({ a: "constructor" })],
    ["a negative id", bpe({ a: -1 })],
    ["a huge id", bpe({ a: 4294967295 })],
    ["an added token without id", bpe({ a: 0 }, { added_tokens: [{ content: "b" }] })],
    ["added tokens that are no list", bpe({ a: 0 }, { added_tokens: "b" })],
    ["an unknown model", { ...bpe({}), model: { type: "Nonesuch", vocab: [] } }],
    ["an unknown decoder", bpe({ a: 0 }, { decoder: { type: "Nonesuch" } })],
    ["a bad regular expression", bpe({ a: 0 }, { pre_tokenizer: { type: "Split", pattern: { Regex: "(" } } })],
  ])("refuses %s", async (_, definition) => {
    await expect(load(definition)).rejects.toThrow(FormatError);
  });

  it("says that tokenizer.json is missing", async () => {
    await expect(loadTokenizer(memoryFiles("m", new Map()))).rejects.toThrow(/m\/tokenizer\.json.*no such file/);
  });

  it("refuses to encode with a special token that has no id", async () => {
    const tokenizer = await load(
      bpe(
        { a: 0 },
        {
          post_processor: {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "<s>" } }, { Sequence: { id: "A" } }],
          },
        },
      ),
    );
    expect(() => tokenizer.encode("a")).toThrow(FormatError);
    expect([...tokenizer.encode("a", { addSpecialTokens: false })]).toEqual([0]);
  });
});
