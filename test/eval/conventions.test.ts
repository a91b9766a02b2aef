import { readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { evaluateQuality, type QualityOptions } from "../../src/eval/index.js";
import { evaluationWindows } from "../../src/eval/windows.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { loadTokenizer, type TokenizedText, tokenizeText } from "../../src/text/index.js";
import { load, path } from "../golden/golden.js";

// Rolling perplexities of tiny-6m on the first 60,000 characters of books-eval.txt, by an independent implementation in
// PyTorch (float32); the convention lmEval is loglikelihood_rolling of lm-evaluation-harness.
const golden = { tokens: 15_021, token: 38.4131, word: 170.3038, byte: 2.492726, bits: 1.317724 };
// Tokens that are scored of its 15,021, by the same implementation.
const scored: [options: Partial<QualityOptions>, tokens: number][] = [
  [{ convention: "rolling", stride: 256 }, 15_020],
  [{ convention: "rolling", stride: 256, begin: 0 }, 15_021],
  [{ convention: "rolling", stride: 512 }, 14_991],
  [{ convention: "rolling", stride: 512, begin: 0 }, 14_992],
  [{ convention: "lmEval", begin: 0 }, 15_021],
];

let backend: Backend;
let model: Model;
let text: TokenizedText;

beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
  model = await load(path("../../models/tiny-6m"), backend, "f32");
  const tokenizer = await loadTokenizer(directoryFiles(path("../../models/tiny-6m")));
  const whole = readFileSync(path("../../models/text/books-eval.txt"), "utf8");
  text = await tokenizeText(tokenizer, whole.slice(0, 60_000), { name: "books.txt" });
});
afterAll(() => backend[Symbol.dispose]());

const measured = async (options: QualityOptions, of = text) =>
  (await evaluateQuality([{ name: "m", model }], of, options))[0];

test("rolling as lm-evaluation-harness gives the golden perplexities", async () => {
  const quality = await measured({ convention: "lmEval", begin: 0 });
  expect(quality.tokens).toBe(golden.tokens);
  expect(quality.perplexity / golden.token).toBeCloseTo(1, 3.7);
  expect(quality.wordPerplexity! / golden.word).toBeCloseTo(1, 3.7);
  expect(quality.bytePerplexity! / golden.byte).toBeCloseTo(1, 3.7);
  expect(quality.bitsPerByte! / golden.bits).toBeCloseTo(1, 3.7);
}, 0);

test.each(scored)("%j scores %i tokens, each once and in order", ({ convention, stride = 256, begin }, tokens) => {
  const options = { convention: convention!, window: 512, stride, begin, maxWindows: Number.MAX_SAFE_INTEGER };
  const windows = evaluationWindows(text.tokens, options);
  expect(windows.scoredTokens).toBe(tokens);
  expect(windows.coveredTokens).toBe(text.tokens.length);
  for (let w = 0; w < windows.count; w++) {
    const { inputs, targets, firstRow } = windows.at(w);
    expect(inputs.length).toBe(firstRow + targets.length);
    expect(inputs.length).toBeLessThanOrEqual(512);
    // What a row predicts is what comes in with the next.
    expect(inputs.subarray(firstRow + 1)).toEqual(targets.subarray(0, -1));
  }
});

test("a begin-of-text token stands in front of every window", async () => {
  const window = 64;
  const part = { ...text, tokens: text.tokens.subarray(0, window) };
  const begun = await measured({ window, begin: 0 }, part);
  expect(begun).toMatchObject({ tokens: window, windows: 1, bos: true });
  // One window is a whole text for lm-evaluation-harness too.
  expect(begun.nll).toBeCloseTo((await measured({ window, begin: 0, convention: "lmEval" }, part)).nll, 10);
  const plain = await measured({ window }, part);
  expect(plain.tokens).toBe(window - 1);
  expect(Math.abs(plain.nll - begun.nll)).toBeGreaterThan(1e-5);
  const second = { ...text, tokens: text.tokens.subarray(window, 2 * window) };
  const both = await measured({ window, begin: 0, maxWindows: 2 });
  expect(both.nll).toBeCloseTo((begun.nll + (await measured({ window, begin: 0 }, second)).nll) / 2, 10);
});

test("says what does not fit, and what to do", async () => {
  const short = { ...text, tokens: text.tokens.subarray(0, 10) };
  await expect(measured({}, short)).rejects.toThrow(/books\.txt has 10 tokens, and a window 512: .*`window`/);
  await expect(measured({ window: 2048 })).rejects.toThrow(/made for 1024: take a window \(`window`\) of at most 1024/);
  await expect(measured({ convention: "lmEval" })).rejects.toThrow(/begin-of-text/);
  await expect(measured({ convention: "rolling", stride: 600 })).rejects.toThrow(UsageError);
});
