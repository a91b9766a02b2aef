import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ProblemsError, type ProgressEvent, UsageError } from "../../src/core/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import {
  collect,
  type GenerateOptions,
  type GenerationStep,
  type GenerationSummary,
  generate,
  generateChat,
  generateText,
  Sequence,
  type SequenceOptions,
} from "../../src/runtime/index.js";
import { loadChatTemplate, loadTokenizer, type Tokenizer } from "../../src/text/index.js";
import { architectureGolden, load, path, tiny6mGolden } from "../golden/golden.js";
import { byRole } from "../support/gatedBlock.js";

const golden = architectureGolden("llama");
let backend: Backend;
let model: Model;

beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/llama"), backend, "f32");
});
afterAll(() => backend[Symbol.dispose]());

const greedy: GenerateOptions = { maxTokens: golden.greedy.length, stopIds: [] };
const prompt = golden.greedyPrompt;
const idsOf = async (options: GenerateOptions, start = prompt) =>
  (await collect(generate(model, start, { ...greedy, ...options }))).tokenIds;

async function stepsOf(generation: AsyncIterable<GenerationStep>): Promise<GenerationStep[]> {
  const steps: GenerationStep[] = [];
  for await (const step of generation) steps.push(step);
  return steps;
}

/** The same threshold for every map of every layer. */
const uniform = (threshold: number) => ({
  maps: Array.from({ length: model.config.layers }, () => byRole(() => threshold)),
});

describe("generate", () => {
  test("greedy gives the golden tokens, in chunks of any size, alone and through all logits", async () => {
    for (const prefillChunk of [1, 5, 24, 1000]) expect(await idsOf({ prefillChunk })).toEqual(golden.greedy);
    expect(await idsOf({ logprobs: true })).toEqual(golden.greedy);
    expect(await idsOf({ temperature: 0.7, topK: 1 })).toEqual(golden.greedy);
  });

  test("takes a prompt in any list of ids, and says what else is no prompt", async () => {
    expect((await collect(generate(model, [...prompt], greedy))).tokenIds).toEqual(golden.greedy);
    const refused = (wrong: unknown) => collect(generate(model, wrong as number[], greedy));
    await expect(refused([])).rejects.toThrow(UsageError);
    await expect(refused("hello")).rejects.toThrow(/no list of token ids.*generateText/);
    await expect(refused(undefined)).rejects.toThrow(UsageError);
    await expect(refused([1, 2.5])).rejects.toThrow(/token 2\.5 of the prompt/);
    await expect(refused([model.config.vocabSize])).rejects.toThrow(UsageError);
    await expect(idsOf({ stopStrings: "." as never, tokenizer: {} as Tokenizer })).rejects.toThrow(
      /array of texts that are not empty/,
    );
  });

  test("steps come one by one, the last with the summary", async () => {
    const steps = await stepsOf(generate(model, prompt, greedy));
    expect(steps.map((step) => step.id)).toEqual(golden.greedy);
    expect(steps.slice(0, -1).every((step) => step.finish === undefined)).toBe(true);
    const finish = steps.at(-1)!.finish!;
    expect(finish).toMatchObject({ reason: "maxTokens", tokenIds: golden.greedy, text: "" });
    expect(finish.timings).toMatchObject({ promptTokens: 24, decodeSteps: 15 });
    expect(finish.timings.decodeTokensPerSecond).toBeGreaterThan(0);
  });

  test("a seed gives the same sample again", async () => {
    const sampled = { temperature: 1.5, topP: 0.9, repetitionPenalty: 1.1 };
    const first = await idsOf({ ...sampled, seed: 3 });
    expect(await idsOf({ ...sampled, seed: 3 })).toEqual(first);
    expect(await idsOf({ ...sampled, seed: 4 })).not.toEqual(first);
  });

  test("a repetition penalty that rules everything seen out gives new tokens only", async () => {
    const ids = await idsOf({ repetitionPenalty: 1e6 });
    expect(new Set([...prompt, ...ids]).size).toBe(new Set(prompt).size + ids.length);
  });

  test("logprobs are those of the golden distribution after the prompt", async () => {
    const [step] = await stepsOf(generate(model, prompt, { ...greedy, maxTokens: 1, logprobs: true }));
    const logits = [...golden.lastLogits.values()];
    const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0);
    expect(step.logprob).toBeCloseTo(golden.lastLogits.get(golden.greedy[0])! - Math.log(total), 3);
  });

  test("ends at a stop token, at the model's own by default, and when there is no room left", async () => {
    const stop = golden.greedy[3];
    const stopped = await collect(generate(model, prompt, { ...greedy, stopIds: [stop] }));
    expect(stopped).toMatchObject({ reason: "stopToken", tokenIds: golden.greedy.slice(0, 4) });
    expect(model.config.eosTokenIds).toEqual([2]);

    using sequence = new Sequence(model, 27);
    const full = await collect(generate(model, prompt, { ...greedy, sequence }));
    expect(full).toMatchObject({ reason: "capacity", tokenIds: golden.greedy.slice(0, 4) });
    const { maxPositions } = model.config;
    const long = new Uint32Array(maxPositions - 1).fill(5);
    const last = await collect(generate(model, long, greedy));
    expect(last).toMatchObject({ reason: "capacity" });
    expect(last.tokenIds.length).toBe(2);
  });

  test("an aborted signal stops before a chunk and between tokens, with its reason", async () => {
    const reason = new Error("enough");
    const aborted = { ...greedy, signal: AbortSignal.abort(reason) };
    await expect(collect(generate(model, prompt, aborted))).rejects.toBe(reason);

    const duringPrefill = new AbortController();
    const events: ProgressEvent[] = [];
    const onProgress = (event: ProgressEvent) => {
      events.push(event);
      duringPrefill.abort(reason);
    };
    const chunked = { ...greedy, prefillChunk: 4, signal: duringPrefill.signal, onProgress };
    await expect(collect(generate(model, prompt, chunked))).rejects.toBe(reason);
    expect(events).toMatchObject([{ stage: "prefill", done: 4, total: 24, unit: "tokens" }]);

    const between = new AbortController();
    const seen: number[] = [];
    const run = async () => {
      for await (const { id } of generate(model, prompt, { ...greedy, signal: between.signal })) {
        seen.push(id);
        if (seen.length === 3) between.abort(reason);
      }
    };
    await expect(run()).rejects.toBe(reason);
    expect(seen).toEqual(golden.greedy.slice(0, 3));
  });

  test("timers run while tokens are generated", async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 0);
    await idsOf({ prefillChunk: 4 });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(3);
  });

  test("gives back everything it allocated, also when it is left early or fails", async () => {
    await idsOf({});
    const before = backend.memoryBytes();
    await idsOf({ temperature: 1, seed: 1 });
    expect(backend.memoryBytes()).toBe(before);
    for await (const _ of generate(model, prompt, greedy)) break;
    expect(backend.memoryBytes()).toBe(before);
    const failing = { ...greedy, signal: AbortSignal.timeout(0), maxTokens: 200 };
    await expect(collect(generate(model, prompt, failing))).rejects.toThrow();
    expect(backend.memoryBytes()).toBe(before);
  });

  test.each([
    ["an empty prompt", () => generate(model, new Uint32Array(), greedy), UsageError],
    ["a token outside the vocabulary", () => generate(model, Uint32Array.of(512), greedy), UsageError],
    ["no tokens to make", () => generate(model, prompt, { maxTokens: 0 }), UsageError],
    ["stop strings without a tokenizer", () => generate(model, prompt, { stopStrings: ["x"] }), UsageError],
    ["a chunk of 0", () => generate(model, prompt, { prefillChunk: 0 }), UsageError],
    ["a prompt beyond all positions", () => generate(model, new Uint32Array(300), greedy), UsageError],
    ["sampling options out of range", () => generate(model, prompt, { topP: 2 }), ProblemsError],
  ])("refuses %s", async (_what, run, error) => {
    await expect(collect(run())).rejects.toThrow(error);
  });
});

describe("sequences", () => {
  const prompts = [prompt, prompt.slice(5), Uint32Array.of(1, 2, 3), prompt.slice().reverse()];

  test("several generations on one model give what each gives alone, at once and in turns", async () => {
    const alone = [];
    for (const start of prompts) alone.push(await idsOf({}, start));

    const atOnce = prompts.map((start, i) => idsOf({ prefillChunk: 3 + i }, start));
    expect(await Promise.all(atOnce)).toEqual(alone);

    const running = prompts.map((start) => generate(model, start, greedy));
    const inTurns: number[][] = prompts.map(() => []);
    // A fixed but irregular order of turns.
    for (let turn = 0; inTurns.some((ids) => ids.length < golden.greedy.length); turn++) {
      const i = (turn * turn + (turn >> 1)) % running.length;
      const { value } = await running[i].next();
      if (value !== undefined) inTurns[i].push(value.id);
    }
    expect(inTurns).toEqual(alone);
  });

  test("a continued sequence runs only what is new and gives the same tokens", async () => {
    using sequence = new Sequence(model, 100);
    const first = await collect(generate(model, prompt, { ...greedy, sequence }));
    expect(sequence.tokens).toEqual([...prompt, ...golden.greedy.slice(0, -1)]);

    const next = Uint32Array.of(...prompt, ...first.tokenIds, 7, 8, 9);
    const fresh = await collect(generate(model, next, greedy));
    const continued = await collect(generate(model, next, { ...greedy, sequence }));
    expect(continued.tokenIds).toEqual(fresh.tokenIds);
    expect(continued.timings.promptTokens).toBe(4);

    // Another text: only the common beginning stays; the same prompt again runs one token.
    const other = Uint32Array.of(...prompt.slice(0, 10), 300, 301);
    const rewound = await collect(generate(model, other, { ...greedy, sequence }));
    expect(rewound.timings.promptTokens).toBe(2);
    expect(rewound.tokenIds).toEqual(await idsOf({}, other));
    const again = await collect(generate(model, other, { ...greedy, sequence }));
    expect(again.timings.promptTokens).toBe(1);
    expect(again.tokenIds).toEqual(rewound.tokenIds);
  });

  test("rewinding ahead, overfilling and another model's sequence are refused", async () => {
    using sequence = new Sequence(model, 10);
    expect(() => sequence.rewind(1)).toThrow(UsageError);
    await expect(sequence.run(prompt)).rejects.toThrow("0 + 24 tokens in a sequence of 10");
    const otherBackend = await openBackend("reference");
    const other = await load(path("arch/llama"), otherBackend, "f32");
    await expect(collect(generate(other, prompt, { sequence }))).rejects.toThrow("another model");
    otherBackend[Symbol.dispose]();
  });
});

describe("prefill policies with activation thresholds", () => {
  /** Logits after the prompt. */
  async function logitsWith(
    options: { chunk: number; sparseFrom: number },
    thresholds: SequenceOptions["thresholds"] = uniform(0.4),
  ): Promise<Float32Array> {
    using sequence = new Sequence(model, prompt.length, { thresholds });
    const logits = await sequence.run(prompt, options);
    const values = await backend.read(logits);
    backend.release(logits);
    return values;
  }

  test("the cut is that of the whole prompt: chunks change nothing", async () => {
    for (const sparseFrom of [0, 7, 12, 24]) {
      const whole = await logitsWith({ chunk: 24, sparseFrom });
      for (const chunk of [1, 5, 8]) {
        const chunked = await logitsWith({ chunk, sparseFrom });
        for (const [id, logit] of chunked.entries()) expect(Math.abs(logit - whole[id])).toBeLessThan(1e-4);
      }
    }
  });

  test("the policies differ from each other, and dense prefill equals the dense model's", async () => {
    const dense = await logitsWith({ chunk: 24, sparseFrom: 0 }, "dense");
    expect(await logitsWith({ chunk: 24, sparseFrom: 24 })).toEqual(dense);
    expect(await logitsWith({ chunk: 24, sparseFrom: 12 })).not.toEqual(dense);
    expect(await logitsWith({ chunk: 24, sparseFrom: 0 })).not.toEqual(await logitsWith({ chunk: 24, sparseFrom: 12 }));
  });

  test("generate with dense prefill skips inputs only while decoding; with denseFirst 0 in one-token chunks too", async () => {
    const thresholds = uniform(0.4);
    backend.takeCounters();
    await idsOf({ thresholds, maxTokens: 1, prefillChunk: 1 });
    expect(backend.takeCounters().inputs).toBe(0);
    await idsOf({ thresholds, maxTokens: 2, prefillChunk: 1 });
    const { queryHeads, headDim, hiddenSize, intermediateSize, layers } = model.config;
    const inputsPerToken = layers * (5 * hiddenSize + queryHeads * headDim + intermediateSize);
    const decoded = backend.takeCounters();
    expect(decoded.inputs).toBe(inputsPerToken);
    expect(decoded.inputsSkipped).toBeGreaterThan(0);
    await idsOf({ thresholds, maxTokens: 2, prefillChunk: 1, prefill: { denseFirst: 0 } });
    expect(backend.takeCounters().inputs).toBe(25 * inputsPerToken);
    await idsOf({ thresholds, maxTokens: 2, prefillChunk: 1, prefill: "secondHalf" });
    expect(backend.takeCounters().inputs).toBe(13 * inputsPerToken);
  });
});

describe("text, on tiny-6m", () => {
  let tinyBackend: Backend;
  let tiny: Model;
  let tokenizer: Tokenizer;
  const tinyGolden = tiny6mGolden();
  beforeAll(async () => {
    tinyBackend = await openBackend("reference");
    tiny = await load(path("../../models/tiny-6m"), tinyBackend, "bf16");
    tokenizer = await loadTokenizer(directoryFiles(path("../../models/tiny-6m")));
  });
  afterAll(() => tinyBackend[Symbol.dispose]());

  test("generateText gives the golden tokens, and steps whose text joins to the decoded whole", async () => {
    const start = tokenizer.decode(tinyGolden.greedyPrompt);
    expect(tokenizer.encode(start)).toEqual(tinyGolden.greedyPrompt);
    const steps = await stepsOf(generateText(tiny, tokenizer, start, { maxTokens: tinyGolden.greedy.length }));
    expect(steps.map((step) => step.id)).toEqual(tinyGolden.greedy);
    const text = tokenizer.decode(tinyGolden.greedy);
    expect(steps.map((step) => step.text).join("")).toBe(text);
    expect(steps.at(-1)!.finish!.text).toBe(text);
  });

  test("generateChat answers the rendered messages, as generate does after their tokens", async () => {
    const template = (await loadChatTemplate(directoryFiles(path("../../models/tiny-6m"))))!;
    const messages = [{ role: "user", content: "It was a dark night" }];
    const rendered = template.render(messages);
    expect(rendered).toContain("<|im_start|>user");
    const ids = tokenizer.encode(rendered, { addSpecialTokens: false });
    const expected = await collect(generate(tiny, ids, { tokenizer, maxTokens: 12 }));
    const chat = { tokenizer, template };
    const answer = await collect(generateChat(tiny, chat, messages, { maxTokens: 12 }));
    expect(answer.tokenIds).toEqual(expected.tokenIds);
    expect(answer.text).toBe(expected.text);

    using sequence = new Sequence(tiny, 128);
    await collect(generateChat(tiny, chat, messages, { maxTokens: 12, sequence }));
    const second = [...messages, { role: "assistant", content: answer.text }, { role: "user", content: "And then?" }];
    const next = await collect(generateChat(tiny, chat, second, { maxTokens: 4, sequence }));
    // The first turn is not run again.
    expect(next.timings.promptTokens).toBeLessThan(tokenizer.encode(template.render(second)).length - ids.length);
  });

  test("a prompt's token beyond the model's rows names the tokenizer and both sizes", async () => {
    const larger = Object.assign(Object.create(tokenizer), {
      vocabSize: 8193,
      tokenOf: (id: number) => (id === 8192 ? "[PAD]" : tokenizer.tokenOf(id)),
    });
    const generation = generate(tiny, [90, 8192], { tokenizer: larger });
    await expect(collect(generation)).rejects.toThrow(/token 8192, "\[PAD\]".*tokenizer\.json.*8193.*8192/);
  });

  test("a stop string never leaks, wherever tokens cut it", async () => {
    const text = tokenizer.decode(tinyGolden.greedy);
    for (const [from, length] of [
      [0, 3],
      [5, 1],
      [9, 14],
      [30, 25],
    ]) {
      const stop = text.slice(from, from + length);
      const generation = generate(tiny, tinyGolden.greedyPrompt, { tokenizer, stopStrings: [stop], maxTokens: 32 });
      const steps = await stepsOf(generation);
      const finish = steps.at(-1)!.finish!;
      expect(finish.reason).toBe("stopString");
      expect(finish.text).toBe(text.slice(0, text.indexOf(stop)));
      expect(steps.map((step) => step.text).join("")).toBe(finish.text);
      expect(finish.tokenIds).toEqual(tinyGolden.greedy.slice(0, finish.tokenIds.length));
    }
  });
});

test("a sequence serves one generation at a time, and is free again when that ends or is left", async () => {
  using sequence = new Sequence(model, 64);
  const run = (start: Uint32Array) => collect(generate(model, start, { ...greedy, sequence }));
  const both = await Promise.allSettled([run(prompt), run(Uint32Array.of(3, 2, 1))]);
  expect(both.map(({ status }) => status)).toEqual(["fulfilled", "rejected"]);
  const { reason } = both[1] as PromiseRejectedResult;
  expect(reason).toBeInstanceOf(UsageError);
  expect(reason.message).toContain("in use by another generation");
  expect((both[0] as PromiseFulfilledResult<GenerationSummary>).value.tokenIds).toEqual(golden.greedy);

  const left = generate(model, prompt, { ...greedy, sequence });
  await left.next();
  await left.return();
  expect((await run(prompt)).tokenIds).toEqual(golden.greedy);

  const running = sequence.run(Uint32Array.of(1, 2));
  await expect(sequence.run(Uint32Array.of(3))).rejects.toThrow("runs other tokens");
  model.backend.release(await running);
});

test("options that there are not, and values of another kind, are refused with what is expected", async () => {
  const refused = (options: object) => expect(idsOf(options)).rejects;
  await refused({ max_tokens: 2 }).toThrow(/no option "max_tokens"; maxTokens is meant/);
  await refused({ banana: 1 }).toThrow(/no option "banana"; there are maxTokens, /);
  await refused({ maxTokens: 0 }).toThrow(/maxTokens is 0; expected an integer of at least 1/);
  await refused({ seed: Number.NaN, logprobs: "yes" }).toThrow(
    /seed is NaN; .*logprobs is "yes"; expected true or false/,
  );
  await refused({ temperature: "1" }).toThrow(ProblemsError);
  await refused({ temperature: Number.NaN }).toThrow(/temperature is NaN/);
  expect(() => generateText(model, {} as Tokenizer, undefined as never)).toThrow(/prompt is missing; expected a text/);
});
