import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { memoryFiles } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { beginWindows, tokenizeText } from "./tokenizedText.js";
import { loadTokenizer, type Tokenizer } from "./tokenizer.js";

const root = new URL("../../", import.meta.url);
const calibration = readFileSync(new URL("models/text/calib.txt", root), "utf8").slice(0, 150_000);
const byteLevel = await loadTokenizer(directoryFiles(new URL("models/tiny-6m", root).pathname));
const model = new Uint8Array(readFileSync(new URL("fixtures/bpe.model", import.meta.url)));
const sentencePiece = await loadTokenizer(memoryFiles("m", new Map([["tokenizer.model", model]])));

/** The tokenizer, and how many characters it was given. */
function counting(tokenizer: Tokenizer) {
  const seen = { characters: 0 };
  const counted: Tokenizer = Object.create(tokenizer, {
    encode: {
      value: (text: string, options?: object) => {
        seen.characters += text.length;
        return tokenizer.encode(text, options);
      },
    },
    decode: { value: (ids: Iterable<number>) => tokenizer.decode(ids) },
  });
  return { counted, seen };
}

describe.each([
  ["byte-level BPE", byteLevel],
  ["SentencePiece", sentencePiece],
])("tokenizeText with %s", (_, tokenizer) => {
  it("gives the tokens of the whole text, piece by piece", async () => {
    const whole = tokenizer.encode(calibration, { addSpecialTokens: false });
    const text = await tokenizeText(tokenizer, calibration);
    expect(text.tokens).toEqual(whole);
    expect(text.beginning!(whole.length)).toBe(calibration);
  });

  it("stops at the tokens that are wanted", async () => {
    const { counted, seen } = counting(tokenizer);
    const { tokens, beginning } = await tokenizeText(counted, calibration, { maxTokens: 100 });
    expect(tokens).toEqual(tokenizer.encode(calibration, { addSpecialTokens: false }).subarray(0, 100));
    expect(seen.characters).toBeLessThan(calibration.length / 2);
    expect(calibration.startsWith(beginning!(50))).toBe(true);
  });

  it("can be stopped between pieces", async () => {
    const controller = new AbortController();
    const { counted, seen } = counting(tokenizer);
    const done = tokenizeText(counted, calibration, {
      signal: controller.signal,
      onProgress: () => controller.abort(new Error("enough")),
    });
    await expect(done).rejects.toThrow("enough");
    expect(seen.characters).toBeLessThan(calibration.length / 2);
  });
});

it("a text without places to cut is one piece", async () => {
  const text = "x".repeat(70_000);
  expect((await tokenizeText(byteLevel, text)).tokens).toEqual(byteLevel.encode(text));
  expect((await tokenizeText(byteLevel, "")).tokens).toHaveLength(0);
});

it("beginWindows puts the begin-of-text token in front of every window", () => {
  const text = { tokens: Uint32Array.of(5, 6, 7, 8, 9), sha256: "" };
  expect([...beginWindows(text, byteLevel, 3).tokens]).toEqual([0, 5, 6, 0, 7, 8]);
  const without = Object.create(byteLevel, { beginId: { value: undefined } });
  expect(() => beginWindows(text, without, 3)).toThrow(/no begin-of-text token/);
});
