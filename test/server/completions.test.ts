import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { directoryFiles } from "../../src/io/index.node.js";
import { openModel } from "../../src/pipeline/index.js";
import { collect, generateText } from "../../src/runtime/index.js";
import type { Server } from "../../src/server/index.js";
import { loadTokenizer } from "../../src/text/index.js";
import { answerOf, eventsOf, post, tinyServer } from "./tinyServer.js";

const prompt = "It was a dark night, and";
const greedy = { prompt, max_tokens: 12, temperature: 0 };
let server: Server;
/** What the library generates by itself. */
let expected: string;

beforeAll(async () => {
  server = tinyServer();
  const files = directoryFiles(fileURLToPath(new URL("../../models/tiny-6m", import.meta.url)));
  using opened = await openModel(files, { threads: 1 });
  const tokenizer = await loadTokenizer(files);
  expected = (await collect(generateText(opened.model, tokenizer, prompt, { maxTokens: 12 }))).text;
});
afterAll(() => server[Symbol.asyncDispose]());

describe("/v1/completions", () => {
  test("a greedy text is that of the library; usage counts its tokens", async () => {
    const body = await answerOf(await post(server, "/v1/completions", greedy));
    expect(body).toMatchObject({ object: "text_completion", model: "tiny", id: expect.stringMatching(/^cmpl-/) });
    expect(body.choices).toEqual([{ index: 0, text: expected, logprobs: null, finish_reason: "length" }]);
    expect(body.usage).toMatchObject({ completion_tokens: 12, total_tokens: body.usage.prompt_tokens + 12 });
  });

  test("streamed: the same text, then [DONE]; usage in a chunk of its own", async () => {
    const response = await post(server, "/v1/completions", {
      ...greedy,
      stream: true,
      stream_options: { include_usage: true },
    });
    expect(response.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    const { events, done } = await eventsOf(response);
    expect(done).toBe(true);
    expect(events.map((event) => event.choices[0]?.text ?? "").join("")).toBe(expected);
    expect(events.slice(0, -1).every((event) => event.usage === null)).toBe(true);
    expect(events.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: 12 } });
    expect(events.at(-2)?.choices[0].finish_reason).toBe("length");
  });

  test("echo with logprobs scores the prompt, as lm-eval asks for it", async () => {
    const scored = { prompt, max_tokens: 1, temperature: 0, logprobs: 2, echo: true };
    const [choice] = (await answerOf(await post(server, "/v1/completions", scored))).choices;
    const { tokens, token_logprobs: given, top_logprobs: top, text_offset: offsets } = choice.logprobs;
    expect(tokens.join("")).toBe(choice.text);
    expect(choice.text.startsWith(prompt)).toBe(true);
    expect(given[0]).toBeNull();
    expect(top[0]).toBeNull();
    expect(given).toHaveLength(tokens.length);
    for (let t = 1; t < tokens.length; t++) {
      expect(given[t]).toBeLessThan(0);
      expect(Object.keys(top[t])).toHaveLength(2);
      expect(offsets[t]).toBe(offsets[t - 1] + tokens[t - 1].length);
    }
    // The token that was generated is the most probable one.
    expect(top.at(-1)[tokens.at(-1)]).toBeCloseTo(given.at(-1), 5);
    // In chunks of a prompt, and beside other texts, the same numbers.
    const small = tinyServer({ prefillChunk: 3 });
    const others = Array.from({ length: 3 }, () => post(small, "/v1/completions", greedy));
    const [again] = (await answerOf(await post(small, "/v1/completions", scored))).choices;
    for (const [t, logprob] of again.logprobs.token_logprobs.entries()) {
      if (t > 0) expect(logprob).toBeCloseTo(given[t], 3);
    }
    await Promise.all(others);
    await small[Symbol.asyncDispose]();
  });

  test("token ids, several prompts and n: choices in order; a prompt alone is only run", async () => {
    const two = {
      prompt: [
        [40, 41, 42],
        [43, 44],
      ],
      n: 2,
      max_tokens: 2,
      seed: 3,
    };
    const { choices, usage } = await answerOf(await post(server, "/v1/completions", two));
    expect(choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2, 3]);
    expect(usage.prompt_tokens).toBe(5);
    const none = await answerOf(await post(server, "/v1/completions", { prompt: [40, 41], max_tokens: 0, echo: true }));
    expect(none.choices[0].finish_reason).toBe("length");
    expect(none.usage.completion_tokens).toBe(0);
  });

  test("a seed gives one text, another seed another one, also beside others", async () => {
    const ask = async (seed: number) =>
      (await answerOf(await post(server, "/v1/completions", { prompt, max_tokens: 16, seed }))).choices[0].text;
    const alone = await ask(5);
    const [first, second] = await Promise.all([ask(5), ask(6)]);
    expect(first).toBe(alone);
    expect(second).not.toBe(alone);
  });

  test("stop strings, logit_bias and penalties do what they say", async () => {
    const ask = async (fields: object) =>
      (await answerOf(await post(server, "/v1/completions", { ...greedy, ...fields }))).choices[0];
    const stop = expected.slice(5, 8);
    expect(await ask({ stop })).toMatchObject({
      text: expected.slice(0, expected.indexOf(stop)),
      finish_reason: "stop",
    });
    const { logprobs } = await ask({ logprobs: 0, logit_bias: { 300: 100 } });
    expect(new Set(logprobs.tokens).size).toBe(1);
    const penalised = await ask({ logprobs: 0, logit_bias: { 300: 100, 301: 99 }, frequency_penalty: 2 });
    expect(new Set(penalised.logprobs.tokens).size).toBe(2);
  });
});
