import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { memoryFiles } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { Detokenizer } from "./detokenizer.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";

const model = new URL("../../models/tiny-6m", import.meta.url).pathname;

/** A SentencePiece-like vocabulary: "▁" for spaces, byte tokens, one leading space dropped when decoding. */
const sentencePieceVocab = ["<s>", "</s>", "▁", "▁the", "the", "a", "▁a", "é", "▁日"];
const byteTokens = Array.from({ length: 256 }, (_, b) => `<0x${b.toString(16).toUpperCase().padStart(2, "0")}>`);
const sentencePiece = {
  model: {
    type: "BPE",
    vocab: Object.fromEntries([...sentencePieceVocab, ...byteTokens].map((token, id) => [token, id])),
    merges: [],
    byte_fallback: true,
  },
  added_tokens: [0, 1].map((id) => ({ id, content: sentencePieceVocab[id], special: true })),
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: {
    type: "Sequence",
    decoders: [
      { type: "Replace", pattern: { String: "▁" }, content: " " },
      { type: "ByteFallback" },
      { type: "Fuse" },
      { type: "Strip", content: " ", start: 1, stop: 0 },
    ],
  },
};

const stream = (tokenizer: Tokenizer, ids: Iterable<number>, skipSpecialTokens = false) => {
  const detokenizer = new Detokenizer(tokenizer, { skipSpecialTokens });
  return [...Array.from(ids, (id) => detokenizer.push(id)), detokenizer.flush()];
};

describe("Detokenizer", async () => {
  const tokenizer = await loadTokenizer(directoryFiles(model));

  it("joins to the text, without half characters on the way", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary", maxLength: 60 }), (text) => {
        // A lone surrogate has no UTF-8 form.
        fc.pre(!/\p{Surrogate}/u.test(text) && !text.includes("\uFFFD"));
        const pieces = stream(tokenizer, tokenizer.encode(text));
        expect(pieces.join("")).toBe(text);
        expect(pieces.some((piece) => piece.includes("\uFFFD"))).toBe(false);
        expect(pieces.some((piece) => /\p{Surrogate}/u.test(piece))).toBe(false);
      }),
      { seed: 1, numRuns: 500 },
    );
  });

  it.each(["👩‍👩‍👧‍👦 👍🏽 🇩🇪", "日本語の文章、漢字かな。", "नमस्ते עברית русский", "a\uFFFDb\uFFFD", "\uFEFFx", " lead"])(
    "joins %j",
    (text) => {
      expect(stream(tokenizer, tokenizer.encode(text)).join("")).toBe(text);
    },
  );

  it("emits plain text at once", () => {
    const ids = tokenizer.encode("The war of the worlds");
    expect(stream(tokenizer, ids)).toEqual([...Array.from(ids, (id) => tokenizer.decode([id])), ""]);
  });

  it("holds a character back until its last byte", () => {
    const ids = tokenizer.encode("😀");
    expect(ids.length).toBeGreaterThan(1);
    const detokenizer = new Detokenizer(tokenizer);
    const pieces = Array.from(ids, (id) => detokenizer.push(id));
    expect(pieces).toEqual([...Array(ids.length - 1).fill(""), "😀"]);
    expect(detokenizer.flush()).toBe("");
  });

  it("gives U+FFFD at the end for a character that was cut off, and starts afresh", () => {
    const [first] = tokenizer.encode("😀");
    const detokenizer = new Detokenizer(tokenizer);
    expect(detokenizer.push(first)).toBe("");
    expect(detokenizer.flush()).toBe("\uFFFD");
    expect(detokenizer.push(tokenizer.idOf("x")!)).toBe("x");
  });

  it("agrees with one-shot decoding for any ids, valid UTF-8 or not", () => {
    // Single-byte tokens make invalid UTF-8 likely.
    const bytes = Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter(
      (id) => tokenizer.tokenOf(id)!.length === 1,
    );
    expect(bytes.length).toBeGreaterThan(200);
    const anyId = fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...bytes) }, { weight: 1, arbitrary: fc.nat(8300) });
    fc.assert(
      fc.property(fc.array(anyId, { maxLength: 120 }), fc.boolean(), (ids, skipSpecialTokens) => {
        expect(stream(tokenizer, ids, skipSpecialTokens).join("")).toBe(tokenizer.decode(ids, { skipSpecialTokens }));
      }),
      { seed: 2, numRuns: 1000 },
    );
  });

  it("agrees with one-shot decoding where the decoder drops a leading space", async () => {
    const bytes = new TextEncoder().encode(JSON.stringify(sentencePiece));
    const spaced = await loadTokenizer(memoryFiles("m", new Map([["tokenizer.json", bytes]])));
    const words = fc.nat(sentencePieceVocab.length - 1);
    // Ids the tokenizer does not know give no text.
    const anyId = fc.oneof(words, fc.nat(spaced.vocabSize + 20));
    fc.assert(
      fc.property(fc.array(anyId, { maxLength: 60 }), fc.boolean(), (ids, skipSpecialTokens) => {
        expect(stream(spaced, ids, skipSpecialTokens).join("")).toBe(spaced.decode(ids, { skipSpecialTokens }));
      }),
      { seed: 3, numRuns: 1000 },
    );
    const ids = ["<s>", "▁the", "▁", "▁a", "<0xE6>", "<0x97>", "<0xA5>", "▁the"].map((token) => spaced.idOf(token)!);
    expect(stream(spaced, ids, true)).toEqual(["", "the", " ", " a", "", "", "日", " the", ""]);
  });

  it("continues a text as one-shot decoding of both would", async () => {
    const bytes = new TextEncoder().encode(JSON.stringify(sentencePiece));
    const spaced = await loadTokenizer(memoryFiles("m", new Map([["tokenizer.json", bytes]])));
    const words = fc.array(fc.nat(sentencePieceVocab.length - 1), { maxLength: 40 });
    // Bytes of whole characters, so that the text before does not change its end.
    const character = fc.constantFrom(...["é", "日", "😀"].map((c) => [...new TextEncoder().encode(c)]));
    const anyIds = fc.oneof(
      words,
      character.map((c) => c.map((byte) => sentencePieceVocab.length + byte)),
    );
    const text = fc.array(anyIds, { maxLength: 12 }).map((parts) => parts.flat());
    fc.assert(
      fc.property(text, text, fc.boolean(), (before, ids, skipSpecialTokens) => {
        const detokenizer = new Detokenizer(spaced, { skipSpecialTokens, after: before });
        const pieces = [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()];
        const decode = (all: number[]) => spaced.decode(all, { skipSpecialTokens });
        expect(decode(before) + pieces.join("")).toBe(decode([...before, ...ids]));
      }),
      { seed: 4, numRuns: 1000 },
    );
    const [the, a] = ["▁the", "▁a"].map((token) => spaced.idOf(token)!);
    expect(new Detokenizer(spaced, { after: [a] }).push(the)).toBe(" the");
    expect(new Detokenizer(spaced).push(the)).toBe("the");
  });

  it("ends a character that the text before began, and adds nothing of its own", () => {
    const [first, ...rest] = tokenizer.encode("😀");
    const detokenizer = new Detokenizer(tokenizer, { after: [first] });
    expect(rest.map((id) => detokenizer.push(id)).join("")).toBe("😀");
    expect(new Detokenizer(tokenizer, { after: [first] }).flush()).toBe("");
  });

  it("cuts a long window at characters, not inside one that spans tokens", async () => {
    // Bytes E4, and B8 AD E4: the end of 中 and the beginning of the next.
    const definition = {
      ...sentencePiece,
      model: { type: "BPE", vocab: { ä: 0, "¸\u0143ä": 1, "¸\u0143": 2 }, merges: [] },
      added_tokens: [],
      decoder: { type: "ByteLevel" },
    };
    const bytes = new TextEncoder().encode(JSON.stringify(definition));
    const spanning = await loadTokenizer(memoryFiles("m", new Map([["tokenizer.json", bytes]])));
    const ids = [0, ...Array(60).fill(1), 2];
    expect(spanning.decode(ids)).toBe("中".repeat(61));
    expect(stream(spanning, ids).join("")).toBe("中".repeat(61));
  });

  it("decodes a bounded number of tokens per step, on text and on garbage", () => {
    let decoded = 0;
    const counting: Tokenizer = {
      ...Object.fromEntries(["vocabSize", "specialIds"].map((key) => [key, tokenizer[key as keyof Tokenizer]])),
      encode: (text) => tokenizer.encode(text),
      decode: (ids, options) => {
        const list = Array.from(ids);
        decoded += list.length;
        return tokenizer.decode(list, options);
      },
      idOf: (token) => tokenizer.idOf(token),
      tokenOf: (id) => tokenizer.tokenOf(id),
    } as Tokenizer;
    const continuation = tokenizer.idOf("Ģ")!; // byte 0x80, which never begins a character
    const lead = tokenizer.idOf("ä")!; // byte 0xE4, which wants two more
    expect(tokenizer.decode([continuation])).toBe("\uFFFD");
    for (const ids of [
      Array.from(tokenizer.encode("日本 text 😀 ".repeat(100))),
      Array(2000).fill(continuation),
      Array(2000).fill(lead),
      Array.from({ length: 2000 }, (_, i) => [lead, continuation][i % 2]),
    ]) {
      decoded = 0;
      expect(stream(counting, ids).join("")).toBe(tokenizer.decode(ids));
      expect(decoded / ids.length).toBeLessThan(3 * 17);
    }
  });
});
