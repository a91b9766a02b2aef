import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { directoryFiles } from "../../src/io/index.node.js";
import { ToolText } from "../../src/server/api/tools.js";
import { createServer, type Server } from "../../src/server/index.js";
import { path } from "../golden/golden.js";
import { answerOf, eventsOf, type Json, post, tinyServer } from "./tinyServer.js";

const messages = [{ role: "user", content: "Tell me of the sea." }];
const chat = (fields: object = {}) => ({ messages, max_tokens: 10, temperature: 0, ...fields });
let server: Server;

beforeAll(() => {
  server = tinyServer();
});
afterAll(() => server[Symbol.asyncDispose]());

const ask = async (body: object, url = "/v1/chat/completions") => answerOf(await post(server, url, body));

describe("/v1/chat/completions", () => {
  test("the messages go through the model's template, and come out as those of a completion", async () => {
    const body = await ask(chat());
    expect(body).toMatchObject({ object: "chat.completion", id: expect.stringMatching(/^chatcmpl-/), model: "tiny" });
    const [{ message, finish_reason }] = body.choices;
    const prompt = "<|im_start|>user\nTell me of the sea.<|im_end|>\n<|im_start|>assistant\n";
    const plain = await ask({ prompt, max_tokens: 10, temperature: 0 }, "/v1/completions");
    expect(message).toEqual({ role: "assistant", content: plain.choices[0].text, refusal: null });
    expect(finish_reason).toBe("length");
  });

  test("streamed: role first, then the same text, then why it ended, then [DONE]", async () => {
    const whole = await ask(chat());
    const { events, done } = await eventsOf(await post(server, "/v1/chat/completions", chat({ stream: true })));
    const deltas = events.map((event) => event.choices[0].delta);
    expect(deltas[0]).toEqual({ role: "assistant", content: "", refusal: null });
    expect(deltas.map(({ content = "" }) => content).join("")).toBe(whole.choices[0].message.content);
    expect(events.map((event) => event.choices[0].finish_reason).filter(Boolean)).toEqual(["length"]);
    expect(events.at(-1)?.choices[0]).toMatchObject({ delta: {}, finish_reason: "length" });
    expect(new Set(events.map(({ id, object }) => `${id} ${object}`)).size).toBe(1);
    expect(done).toBe(true);
  });

  test("logprobs: each token with its bytes and the most probable ones", async () => {
    const body = await ask(chat({ logprobs: true, top_logprobs: 2 }));
    const { content } = body.choices[0].logprobs;
    expect(content).toHaveLength(10);
    const bytes = Uint8Array.from(content.flatMap((token: Json) => token.bytes));
    expect(new TextDecoder().decode(bytes)).toBe(body.choices[0].message.content);
    for (const { token, logprob, top_logprobs: top } of content) {
      expect(top[0].token).toBe(token);
      expect(top[0].logprob).toBeCloseTo(logprob, 9);
    }
  });

  test("what has run of a chat is not run again, and the next answer is as if it had", async () => {
    const own = tinyServer();
    const first = await answerOf(await post(own, "/v1/chat/completions", chat()));
    const turns = [...messages, first.choices[0].message, { role: "user", content: "And of ships?" }];
    const next = await answerOf(await post(own, "/v1/chat/completions", chat({ messages: turns })));
    expect(next.usage.prompt_tokens_details.cached_tokens).toBeGreaterThan(first.usage.prompt_tokens);
    const fresh = tinyServer();
    const alone = await answerOf(await post(fresh, "/v1/chat/completions", chat({ messages: turns })));
    expect(alone.usage.prompt_tokens_details.cached_tokens).toBe(0);
    expect(next.choices[0].message).toEqual(alone.choices[0].message);
    // Choices of one request share their prompt, which one of them runs.
    const metrics = async () => (await own.app.request("/metrics")).text();
    const long = "the sea and the ships and the wind ".repeat(12);
    const four = await answerOf(
      await post(own, "/v1/chat/completions", chat({ messages: [{ role: "user", content: long }], n: 4 })),
    );
    const text = await metrics();
    const metric = (name: string) => Number(new RegExp(`^${name}\\{model="tiny"\\} (\\d+)`, "m").exec(text)![1]);
    expect(metric("rarefy_prompt_tokens_cached_total")).toBeGreaterThan(3 * 80);
    // They have the same pages for it: 32 tokens of 6 KB each.
    const page = 32 * 6144;
    const prompt = Math.floor(four.usage.prompt_tokens / 32);
    expect(metric("rarefy_kv_shared_bytes")).toBeGreaterThanOrEqual(3 * prompt * page);
    const all = four.usage.prompt_tokens + four.usage.completion_tokens + next.usage.total_tokens;
    expect(metric("rarefy_kv_bytes")).toBeLessThanOrEqual((Math.ceil(all / 32) + 6) * page);
    await own[Symbol.asyncDispose]();
    await fresh[Symbol.asyncDispose]();
  });

  test("a JSON schema holds whatever the model would rather write", async () => {
    const schema = {
      type: "object",
      properties: { ship: { type: "string", maxLength: 8 }, masts: { enum: [1, 2, 3] } },
      required: ["ship", "masts"],
      additionalProperties: false,
    };
    const held = { type: "json_schema", json_schema: { name: "ship", schema } };
    for (const temperature of [0, 1]) {
      const body = await ask(chat({ response_format: held, max_tokens: 120, temperature, seed: 1 }));
      const value = JSON.parse(body.choices[0].message.content);
      expect(Object.keys(value)).toEqual(["ship", "masts"]);
      expect([1, 2, 3]).toContain(value.masts);
      expect(body.choices[0].finish_reason).toBe("stop");
    }
  });

  test("a tool that must be called is called, streamed or not", async () => {
    const tools = ["sail", "anchor"].map((name) => ({
      type: "function",
      function: {
        name,
        parameters: { type: "object", properties: { to: { enum: ["north", "south"] } }, required: ["to"] },
      },
    }));
    const forced = chat({ tools, tool_choice: { type: "function", function: { name: "anchor" } }, max_tokens: 80 });
    const [{ message, finish_reason }] = (await ask(forced)).choices;
    expect(finish_reason).toBe("tool_calls");
    expect(message.content).toBeNull();
    const [call] = message.tool_calls;
    expect(call).toMatchObject({ type: "function", function: { name: "anchor" }, id: expect.stringMatching(/^call_/) });
    expect(["north", "south"]).toContain(JSON.parse(call.function.arguments).to);
    const { events } = await eventsOf(await post(server, "/v1/chat/completions", { ...forced, stream: true }));
    const calls = events.flatMap((event) => event.choices[0].delta.tool_calls ?? []);
    expect(calls).toMatchObject([{ index: 0, function: call.function }]);
    expect(events.at(-1)?.choices[0].finish_reason).toBe("tool_calls");
  });
});

describe("/v1/responses", () => {
  test("an answer as one object, and the same as events in their order", async () => {
    const request = { input: "Tell me of the sea.", max_output_tokens: 10, temperature: 0 };
    const body = await ask(request, "/v1/responses");
    expect(body).toMatchObject({ object: "response", status: "incomplete", usage: { output_tokens: 10 } });
    const { text } = body.output[0].content[0];
    expect(text).toBe((await ask(chat())).choices[0].message.content);
    const { events, names } = await eventsOf(await post(server, "/v1/responses", { ...request, stream: true }));
    expect(names).toEqual(events.map(({ type }) => type));
    expect(events.map(({ sequence_number }) => sequence_number)).toEqual([...events.keys()]);
    expect(names[0]).toBe("response.created");
    expect(names.at(-1)).toBe("response.incomplete");
    const deltas = events.filter(({ type }) => type === "response.output_text.delta").map(({ delta }) => delta);
    expect(deltas.join("")).toBe(text);
    expect(events.at(-1)?.response.output[0].content[0].text).toBe(text);
  });
});

describe("/v1/embeddings", () => {
  test("an encoder gives vectors of length 1, as numbers or base64; a decoder says what it cannot do", async () => {
    // The golden encoder has no tokenizer: token ids serve as well.
    const files = directoryFiles(path("arch/bert"));
    const tokenizer = directoryFiles(new URL("../../models/tiny-6m", import.meta.url).pathname);
    const own = ["tokenizer.json", "tokenizer_config.json"];
    const both = {
      ...files,
      location: files.location,
      close: () => files.close(),
      open: (name: string) => (own.includes(name) ? tokenizer : files).open(name),
    };
    const encoder = createServer({ models: [{ id: "bert", files: () => both, device: "cpu", threads: 1 }] });
    const inputs = {
      input: [
        [1, 2, 3],
        [4, 5],
      ],
    };
    const body = await answerOf(await post(encoder, "/v1/embeddings", inputs));
    expect(body).toMatchObject({ object: "list", model: "bert", usage: { prompt_tokens: 5, total_tokens: 5 } });
    for (const { embedding } of body.data) expect(Math.hypot(...embedding)).toBeCloseTo(1, 5);
    const coded = await answerOf(await post(encoder, "/v1/embeddings", { ...inputs, encoding_format: "base64" }));
    const bytes = Buffer.from(coded.data[1].embedding, "base64");
    const values = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    expect([...values]).toEqual(body.data[1].embedding);
    const generated = await post(encoder, "/v1/completions", { prompt: [1, 2] });
    expect(await generated.json()).toMatchObject({ error: { code: "unsupported_model", param: "model" } });
    await encoder[Symbol.asyncDispose]();
    const refused = await post(server, "/v1/embeddings", { input: "the sea" });
    expect(refused.status).toBe(400);
    expect(await refused.json()).toMatchObject({ error: { code: "unsupported_model" } });
  });
});

test("calls are told from text in the ways that models write them, however the text is cut", () => {
  const names = new Set(["sail"]);
  const call = '{"name": "sail", "arguments": {"to": "north"}}';
  const cases: [string, string, number][] = [
    [`On we go. <tool_call>\n${call}\n</tool_call>`, "On we go. ", 1],
    [`<tool_call>${call}</tool_call><tool_call>${call}</tool_call>`, "", 2],
    [`[TOOL_CALLS][${call}]`, "", 1],
    ['{"name": "sail", "parameters": {"to": "north"}}', "", 1],
    ['{"name": "swim", "arguments": {}}', '{"name": "swim", "arguments": {}}', 0],
    ["a < b and <tool", "a < b and <tool", 0],
  ];
  for (const [text, shown, count] of cases) {
    for (const size of [1, 3, 1000]) {
      const tools = new ToolText(names);
      let seen = "";
      for (let at = 0; at < text.length; at += size) seen += tools.push(text.slice(at, at + size));
      const { text: rest, calls } = tools.end();
      expect([seen + rest, calls.length], `${text} by ${size}`).toEqual([shown, count]);
      for (const { arguments: args } of calls) expect(JSON.parse(args)).toEqual({ to: "north" });
    }
  }
});
