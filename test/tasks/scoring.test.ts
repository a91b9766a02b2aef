import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { ActivationThresholds, Model } from "../../src/model/index.js";
import { parseAttention, parseKv } from "../../src/runtime/index.js";
import { modelScorer } from "../../src/tasks/index.js";
import type { Tokenizer } from "../../src/text/index.js";
import { load, path } from "../golden/golden.js";

/** One token a character. */
const tokenizer: Tokenizer = {
  vocabSize: 96,
  beginId: 1,
  specialIds: new Set([1]),
  warnings: [],
  encode: (text) => Uint32Array.from(Array.from(text), (character) => 3 + (character.codePointAt(0)! % 90)),
  decode: (ids) => Array.from(ids, (id) => String.fromCharCode(id)).join(""),
  idOf: () => undefined,
  tokenOf: (id) => (id === 1 ? "<s>" : undefined),
};

const beginning = "They begin like this. ";
const requests = [
  ...["one", "on", "two", "t"].map((continuation) => ({ context: `${beginning}A:`, continuation })),
  { context: `${beginning}B: `, continuation: "six" },
  { context: "", continuation: "behind" },
  { context: `${beginning}A:`, continuation: "two" },
  { context: "a", continuation: "b" },
];

let backend: Backend;
let model: Model;
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/llama"), backend, "f32");
});
afterAll(() => {
  model[Symbol.dispose]();
  backend[Symbol.dispose]();
});

/** Each request in one pass of its own. */
async function oneByOne(thresholds: ActivationThresholds | "dense", denseFirst: (context: number) => number) {
  const results: { logLikelihood: number; isGreedy: boolean }[] = [];
  for (const { context, continuation } of requests) {
    // A blank at the end of a context belongs to the continuation.
    const given = context === "" ? [1] : [...tokenizer.encode(context.trimEnd())];
    const behind = context.slice(context.trimEnd().length) + continuation;
    const scored = [...tokenizer.encode(context === "" ? continuation : behind)];
    const tokens = Uint32Array.from([...given, ...scored.slice(0, -1)]);
    using cache = model.createCache(tokens.length);
    const options = { logits: "all", thresholds, sparseFrom: denseFirst(given.length) } as const;
    const logits = (await model.forward(tokens, cache, 0, options))!;
    const values = await backend.read(logits);
    const result = { logLikelihood: 0, isGreedy: true };
    for (const [i, id] of scored.entries()) {
      const from = (given.length - 1 + i) * logits.cols;
      const row = Array.from(values.subarray(from, from + model.config.vocabSize));
      const sum = row.reduce((all, value) => all + Math.exp(value), 0);
      result.logLikelihood += row[id] - Math.log(sum);
      if (row.indexOf(Math.max(...row)) !== id) result.isGreedy = false;
    }
    results.push(result);
    backend.release(logits);
  }
  return results;
}

const thresholds = (): ActivationThresholds => ({
  maps: Array.from({ length: model.config.layers }, () => ({
    q_proj: 0.3,
    k_proj: 0.3,
    up_proj: 0.4,
    down_proj: 0.05,
  })),
});

function expectSame(found: readonly { logLikelihood: number; isGreedy: boolean }[], expected: typeof found): void {
  for (const [i, { logLikelihood, isGreedy }] of expected.entries()) {
    expect(found[i].logLikelihood, `request ${i}`).toBeCloseTo(logLikelihood, 3);
    expect(found[i].isGreedy, `request ${i}`).toBe(isGreedy);
  }
}

describe("a model is asked as if each request were run alone", () => {
  test("dense, and runs less than half of the tokens", async () => {
    const scorer = modelScorer({ name: "m", model }, tokenizer);
    expectSame(await scorer.logLikelihoods(requests), await oneByOne("dense", () => 0));
    expect(scorer.work.tokensRun).toBeLessThan(scorer.work.tokensAlone / 2);
  });

  test.each([
    ["all sparse", { denseFirst: 0 }, () => 0],
    // What comes behind a context is sparse, however short that is.
    ["the first tokens dense", { denseFirst: 10 }, (length: number) => Math.min(10, length)],
    ["the first half dense", "secondHalf", (length: number) => Math.ceil(length / 2)],
    ["contexts dense", "dense", (length: number) => length],
  ] as const)("with thresholds, %s", async (_name, prefill, denseFirst) => {
    const scorer = modelScorer({ name: "m", model, thresholds: thresholds() }, tokenizer, { prefill });
    expectSame(await scorer.logLikelihoods(requests), await oneByOne(thresholds(), denseFirst));
  });

  test.each([{ kv: parseKv("recent:budget=1000") }, { attention: parseAttention("window:size=1000") }])(
    "with %o, which hides nothing here",
    async (choice) => {
      const scorer = modelScorer({ name: "m", model, ...choice }, tokenizer);
      expectSame(await scorer.logLikelihoods(requests.slice(4)), (await oneByOne("dense", () => 0)).slice(4));
    },
  );

  test("texts longer than the model are scored in windows, each token once", async () => {
    const scorer = modelScorer({ name: "m", model }, tokenizer, { maxTokens: 8 });
    const [whole] = await scorer.textLogLikelihoods(["abcdefghijklm"]);
    const parts = await modelScorer({ name: "m", model }, tokenizer).logLikelihoods([
      { context: "", continuation: "abcdefgh" },
      { context: "efgh", continuation: "ijklm" },
    ]);
    // The second window is filled up with what is before it: 8 inputs, the last 5 of which predict.
    expect(whole).toBeCloseTo(parts[0].logLikelihood + parts[1].logLikelihood, 3);
  });

  test("answers end before a stop text and have at most the tokens asked for", async () => {
    const scorer = modelScorer({ name: "m", model }, tokenizer);
    const [free] = await scorer.answers([{ prompt: "abc", settings: { until: [], max_gen_toks: 6 } }]);
    expect(Array.from(free).length).toBeLessThanOrEqual(6);
    const stop = free.slice(2, 4);
    const [held] = await scorer.answers([{ prompt: "abc", settings: { until: [stop], max_gen_toks: 6 } }]);
    expect(held).toBe(free.slice(0, free.indexOf(stop)));
  });
});
