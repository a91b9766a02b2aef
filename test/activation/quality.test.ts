import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type ProgressEvent, Random } from "../../src/core/index.js";
import { evaluateQuality, measureSpeed, type Variant } from "../../src/eval/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds, Model } from "../../src/model/index.js";
import { calibrateActivationSparsity, toThresholds } from "../../src/pipeline/index.js";
import type { TokenizedText } from "../../src/text/index.js";
import { load, logitsOf, negativeLogLikelihood, path, tiny6mGolden } from "../golden/golden.js";

const window = 32;

let backend: Backend;
let model: Model;
let text: TokenizedText;
let dense: Variant;
let sparse: Variant;
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/llama"), backend, "f32");
  const random = new Random(7);
  text = { tokens: Uint32Array.from({ length: 150 }, () => random.integer(512)), sha256: "0".repeat(64) };
  dense = { name: "dense", model };
  const { records } = await calibrateActivationSparsity(model, text, { sparsities: [0.5], window });
  sparse = { name: "TEAL 50 %", model, thresholds: toThresholds(records[0]) };
});
afterAll(() => backend[Symbol.dispose]());

describe("evaluateQuality", () => {
  test("gives the NLL of an independent implementation on tiny-6m", async () => {
    const { ids, nll } = tiny6mGolden();
    using other = await openBackend("reference");
    const tiny = await load(path("../../models/tiny-6m"), other, "f32");
    const [quality] = await evaluateQuality(
      [{ name: "tiny-6m", model: tiny }],
      { tokens: ids, sha256: "" },
      { window: 64 },
    );
    expect(quality).toMatchObject({ tokens: 63, window: 64, windows: 1, activationSparsity: 0 });
    const expected = nll.reduce((sum, value) => sum + value, 0) / nll.length;
    expect(Math.abs(quality.nll - expected)).toBeLessThan(1e-4);
    expect(quality.perplexity).toBe(Math.exp(quality.nll));
  });

  test("averages over windows that do not overlap, and leaves a partial one out", async () => {
    const [quality] = await evaluateQuality([dense], text, { window });
    let sum = 0;
    for (let w = 0; w < 4; w++) {
      const tokens = text.tokens.subarray(w * window, (w + 1) * window);
      const logits = await logitsOf(model, tokens);
      for (let i = 0; i + 1 < window; i++) sum += negativeLogLikelihood(logits[i], tokens[i + 1]);
    }
    expect(quality).toMatchObject({ windows: 4, tokens: 4 * 31, textSha256: text.sha256 });
    expect(quality.nll).toBeCloseTo(sum / (4 * 31), 9);
    const [two] = await evaluateQuality([dense], text, { window, maxWindows: 2 });
    expect(two.windows).toBe(2);
    expect(two.nll).not.toBe(quality.nll);
  });

  test("compares every variant with the first, in one run on one model", async () => {
    const again: Variant = { name: "again", model };
    const [first, second, third] = await evaluateQuality([dense, sparse, again], text, { window });
    expect(first.divergence).toBeUndefined();
    expect(second.divergence!.klDivergence).toBeGreaterThan(0.01);
    expect(second.divergence!.top1Agreement).toBeLessThan(1);
    expect(third).toEqual({ ...first, name: "again", divergence: { klDivergence: 0, top1Agreement: 1 } });
    const [alone] = await evaluateQuality([sparse], text, { window });
    expect(alone.nll).toBe(second.nll);
  });

  test("counts the sparsity that thresholds realise", async () => {
    const [, quality] = await evaluateQuality([dense, sparse], text, { window, maxWindows: 1 });
    expect(Math.abs(quality.activationSparsity - 0.5)).toBeLessThan(0.05);
    const everything = { ...sparse, thresholds: raised(sparse, 1e30) };
    expect((await evaluateQuality([everything], text, { window }))[0].activationSparsity).toBe(1);
  });

  test("applies the thresholds from where the prefill policy says", async () => {
    const run = async (prefill: Parameters<typeof evaluateQuality>[2] & object) =>
      (await evaluateQuality([dense, sparse], text, { window, maxWindows: 2, ...prefill }))[1];
    const [all, half, none] = [await run({}), await run({ prefill: "secondHalf" }), await run({ prefill: "dense" })];
    expect(none.divergence).toEqual({ klDivergence: 0, top1Agreement: 1 });
    expect(none.activationSparsity).toBe(0);
    expect(half.divergence!.klDivergence).toBeGreaterThan(0);
    expect(half.divergence!.klDivergence).toBeLessThan(all.divergence!.klDivergence);
    expect(half.nll).toBe((await run({ prefill: { denseFirst: window / 2 } })).nll);
  });

  test("reports progress, and stops when aborted", async () => {
    const events: ProgressEvent[] = [];
    await evaluateQuality([dense, sparse], text, { window, onProgress: (event) => events.push(event) });
    expect(events.at(-1)).toMatchObject({ stage: "evaluate", done: 256, total: 256, unit: "tokens" });
    const controller = new AbortController();
    const aborted = evaluateQuality([sparse], text, {
      window,
      onProgress: () => controller.abort(),
      signal: controller.signal,
    });
    await expect(aborted).rejects.toThrow(/abort/i);
  });

  test.each([
    [{ window: 151 }, "the text has 150 tokens, and a window 151"],
    [{ window: 1 }, "a window of 1 tokens"],
    [{ window: Number.NaN }, "a window of NaN tokens"],
    [{ maxWindows: 0 }, "0 windows"],
  ])("refuses %j", async (options, message) => {
    await expect(evaluateQuality([dense], text, options)).rejects.toThrow(message);
  });

  test("refuses nothing and models with another vocabulary", async () => {
    await expect(evaluateQuality([], text)).rejects.toThrow("nothing to evaluate");
    const other = { name: "other", model: { ...model, config: { ...model.config, vocabSize: 9 } } as unknown as Model };
    await expect(evaluateQuality([dense, other], text)).rejects.toThrow("other has 9 tokens in its vocabulary");
  });
});

function raised({ thresholds }: Variant, threshold: number) {
  const { maps } = thresholds as ActivationThresholds;
  return {
    maps: maps.map((layer) => Object.fromEntries(Object.keys(layer).map((role) => [role, threshold]))),
  };
}

describe("measureSpeed", () => {
  const options = { prefillTokens: 16, contextTokens: 40, decodeTokens: 8, repeats: 2 };

  test("times every variant in every round, turning the order around", async () => {
    const order: (string | undefined)[] = [];
    const speeds = await measureSpeed([dense, sparse], text.tokens, {
      ...options,
      repeats: 3,
      onProgress: ({ detail }) => order.push(detail),
      residentBytes: () => 1234,
    });
    expect(speeds.map(({ name }) => name)).toEqual(["dense", "TEAL 50 %"]);
    for (const speed of speeds) {
      expect(speed).toMatchObject({ ...options, repeats: 3, threads: 1, peakMemoryBytes: 1234 });
      for (const { median, min, max, samples } of [speed.prefillTokensPerSecond, speed.decodeTokensPerSecond]) {
        expect(samples).toBe(3);
        expect(min).toBeGreaterThan(0);
        expect(median).toBeGreaterThanOrEqual(min);
        expect(max).toBeGreaterThanOrEqual(median);
      }
      expect(speed.runsAs.map(({ structure, share }) => [structure, share])).toEqual([["dense", 1]]);
    }
    expect(order[0]).toBe("dense");
    expect(order.at(-1)).toBe("dense");
  });

  test("prefills densely and decodes sparsely, whatever the variant", async () => {
    const calls: { tokens: number; start: number; sparseFrom: number | undefined }[] = [];
    const watched = new Proxy(model, {
      get(target, key) {
        const value = Reflect.get(target, key, target);
        if (key === "forward") {
          return (...args: Parameters<Model["forward"]>) => {
            calls.push({ tokens: args[0].length, start: args[2], sparseFrom: args[3]?.sparseFrom });
            return target.forward(...args);
          };
        }
        return typeof value === "function" ? value.bind(target) : value;
      },
      set: (target, key, value) => Reflect.set(target, key, value, target),
    });
    await measureSpeed([{ ...sparse, model: watched }], text.tokens, { ...options, repeats: 1 });
    const round = [
      { tokens: 16, start: 0, sparseFrom: 48 },
      { tokens: 24, start: 16, sparseFrom: 48 },
      ...Array.from({ length: 9 }, (_, i) => ({ tokens: 1, start: 39 + i, sparseFrom: 0 })),
    ];
    expect(calls).toEqual([...round, ...round]);
  });

  test("counts the bytes of a decoded token: weights once, keys and values of what is attended", async () => {
    const [whole, half] = await measureSpeed([dense, sparse], text.tokens, options);
    // f32 keys and values of 2 layers of 2 heads of 16; tokens at positions 40 … 47 attend to 41 … 48.
    const kvBytes = 2 * 2 * 2 * 16 * 4 * 44.5;
    expect(whole.bytesPerToken).toBe(model.weightBytes.perToken + kvBytes);
    expect(whole.inputsSkipped).toBe(0);
    expect(Math.abs(half.inputsSkipped - 0.5)).toBeLessThan(0.08);
    expect(half.bytesPerToken).toBeLessThan(whole.bytesPerToken);
    expect(half.bytesPerToken).toBeGreaterThan(kvBytes + 0.4 * model.weightBytes.perToken);
  });

  test("refuses a text that is too short and rounds without work", async () => {
    await expect(measureSpeed([dense], text.tokens.subarray(0, 47), options)).rejects.toThrow(
      "a text of 47 tokens; timing needs 48",
    );
    await expect(measureSpeed([dense], text.tokens, { ...options, decodeTokens: 0 })).rejects.toThrow("cannot time");
    await expect(measureSpeed([dense], text.tokens, { ...options, contextTokens: 8 })).rejects.toThrow("cannot time");
  });
});
