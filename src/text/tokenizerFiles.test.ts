import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { memoryFiles } from "../io/index.js";
import { loadTokenizer } from "./tokenizer.js";

const fixture = (name: string) => new Uint8Array(readFileSync(new URL(`fixtures/${name}`, import.meta.url)));
const json = (value: unknown) => new TextEncoder().encode(JSON.stringify(value));
const load = (files: Record<string, unknown>) =>
  loadTokenizer(
    memoryFiles(
      "m",
      new Map(
        Object.entries(files).map(([name, content]) => {
          if (content instanceof Uint8Array) return [name, content];
          return [name, typeof content === "string" ? new TextEncoder().encode(content) : json(content)];
        }),
      ),
    ),
  );

describe("tokenizer.model", () => {
  const golden: Record<string, { text: string; ids: number[] }[]> = JSON.parse(
    new TextDecoder().decode(fixture("sentencePiece.json")),
  ).models;

  it.each(Object.keys(golden))("gives the ids of sentencepiece: %s", async (name) => {
    const tokenizer = await load({ "tokenizer.model": fixture(`${name}.model`) });
    for (const { text, ids } of golden[name]) {
      expect([...tokenizer.encode(text, { addSpecialTokens: false })], text).toEqual(ids);
    }
  });

  it("begins a text as Llama does, and as tokenizer_config.json says", async () => {
    const model = fixture("bpe.model");
    const begin = async (config: object) =>
      [...(await load({ "tokenizer.model": model, "tokenizer_config.json": config })).encode("a")][0];
    const plain = await load({ "tokenizer.model": model });
    expect(plain.tokenOf([...plain.encode("a")][0])).toBe("<s>");
    expect(await begin({ add_bos_token: false })).not.toBe(1);
    expect(await begin({ bos_token: { content: "</s>" } })).toBe(2);
    expect(plain.specialIds).toContain(1);
    expect([...plain.encode("<|im_start|>", { addSpecialTokens: false })]).toEqual([plain.idOf("<|im_start|>")]);
    expect(plain.decode(plain.encode("Zoë 日本 😀"), { skipSpecialTokens: true })).toBe("Zoë 日本 😀");
  });

  it("is refused with a reason where it is something else", async () => {
    const refused = (bytes: Uint8Array) => expect(load({ "tokenizer.model": bytes })).rejects;
    await refused(new TextEncoder().encode("IQ== 0\nIg== 1\n")).toThrow(
      /tokenizer\.model: not a SentencePiece model.*tiktoken/,
    );
    await refused(new Uint8Array()).toThrow(FormatError);
    await refused(fixture("bpe.model").subarray(0, 5000)).toThrow(/not a protocol buffer message/);
  });

  it("ends damaged files in a FormatError or a tokenizer", async () => {
    const whole = fixture("bpe.model");
    const change = fc.record({ at: fc.nat(whole.length - 1), byte: fc.nat(255), length: fc.nat(whole.length) });
    await fc.assert(
      fc.asyncProperty(change, async ({ at, byte, length }) => {
        const bytes = whole.slice(0, byte % 2 ? whole.length : length);
        bytes[at % Math.max(1, bytes.length)] = byte;
        try {
          (await load({ "tokenizer.model": bytes })).encode("the sea");
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { seed: 5, numRuns: 100 },
    );
  });
});

describe("vocab.json with merges.txt", () => {
  const vocab = { a: 0, b: 1, ab: 2, Ġ: 3, Ġab: 4, "<|endoftext|>": 5 };
  const merges = "#version: 0.2\na b\nĠ ab\n";

  it("is byte-level BPE", async () => {
    const config = { bos_token: "<|endoftext|>", eos_token: "<|endoftext|>" };
    const tokenizer = await load({ "vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": config });
    expect([...tokenizer.encode("abab ab")]).toEqual([2, 2, 4]);
    expect(tokenizer.decode([2, 4])).toBe("ab ab");
    expect([...tokenizer.specialIds]).toEqual([5]);
    const prefixed = { ...config, add_prefix_space: true, add_bos_token: true };
    const spaced = await load({ "vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": prefixed });
    expect([...spaced.encode("ab")]).toEqual([5, 4]);
  });

  it("says what it lacks", async () => {
    await expect(load({ "vocab.json": vocab })).rejects.toThrow(/merges\.txt: there is no such file/);
    await expect(load({ "vocab.json": vocab, "merges.txt": "a b c" })).rejects.toThrow(/merge 1 is not two tokens/);
    const config = { tokenizer_class: "NonesuchTokenizer" };
    const unknown = load({ "vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": config });
    await expect(unknown).rejects.toThrow(/tokenizer_class.*Nonesuch.*GPT2.*Qwen2/);
  });
});

describe("tokens that neighbours of tokenizer.json name", () => {
  const base = {
    model: { type: "BPE", vocab: { "<": 0, x: 1, ">": 2, "<x>": 3 }, merges: [] },
    added_tokens: [{ id: 3, content: "<x>", special: false, lstrip: true }],
    decoder: { type: "Fuse" },
    post_processor: null,
    pre_tokenizer: null,
    normalizer: null,
  };
  const token = {
    content: "<|im_end|>",
    lstrip: false,
    normalized: false,
    rstrip: false,
    single_word: false,
    special: true,
  };

  it.each([
    ["added_tokens_decoder", { "tokenizer_config.json": { added_tokens_decoder: { 4: token } } }],
    [
      "added_tokens.json",
      { "added_tokens.json": { "<|im_end|>": 4 }, "special_tokens_map.json": { eos_token: "<|im_end|>" } },
    ],
  ])("are one token each: %s", async (_, neighbours) => {
    const tokenizer = await load({ "tokenizer.json": base, ...neighbours });
    expect([...tokenizer.encode("x<|im_end|>x")]).toEqual([1, 4, 1]);
    expect(tokenizer.idOf("<|im_end|>")).toBe(4);
    expect([...tokenizer.specialIds]).toEqual([4]);
    expect(tokenizer.decode([1, 4], { skipSpecialTokens: true })).toBe("x");
  });

  it("what added_tokens_decoder says of a token that is there counts", async () => {
    const decoder = { 3: { ...token, content: "<x>" } };
    const tokenizer = await load({
      "tokenizer.json": base,
      "tokenizer_config.json": { added_tokens_decoder: decoder },
    });
    expect([...tokenizer.specialIds]).toEqual([3]);
  });

  it.each([
    ["another id of a token", { "<x>": 4 }, /"<x>": its id is 4, and 3 in m\/tokenizer\.json/],
    ["a taken id", { "<y>": 1 }, /"<y>": its id 1 is that of "x" in m\/tokenizer\.json/],
    ["no id", { "<y>": "1" }, /an id that is no integer/],
    ["a huge id", { "<y>": 2 ** 30 }, /added_tokens: id/],
  ])("are refused with %s", async (_, tokens, message) => {
    await expect(load({ "tokenizer.json": base, "added_tokens.json": tokens })).rejects.toThrow(message);
  });
});
