// The bodies of requests to the server, of small models that answer them: an answer, or an error that names what is wrong.
// One that the server had not foreseen (500) is thrown as it was reported.

import { readFileSync } from "node:fs";
import { damagedJson, fresh, json } from "./mutations.mjs";
import * as seeds from "./seeds.mjs";

const golden = (name) => fresh(readFileSync(new URL(`../../test/golden/arch/bert/${name}`, import.meta.url)));
const tokenizerFiles = {
  "tokenizer.json": json(seeds.tokenizer),
  "tokenizer_config.json": json(seeds.tokenizerConfig),
};
const plain = seeds.safetensorsParts(seeds.plain);
const models = {
  decoder: {
    "config.json": json(seeds.configs[0]),
    "model.safetensors": fresh(seeds.safetensorsFile(plain.header, plain.data)),
    ...tokenizerFiles,
  },
  encoder: {
    "config.json": golden("config.json"),
    "model.safetensors": golden("model.safetensors"),
    ...tokenizerFiles,
  },
};

const weather = {
  type: "object",
  properties: { city: { type: "string", minLength: 1 }, days: { type: "integer", minimum: 1 } },
  required: ["city"],
};
const sampling = {
  ...{ temperature: 0.7, top_p: 0.9, top_k: 20, min_p: 0.05, repetition_penalty: 1.1, presence_penalty: 0.5, seed: 3 },
  rarefy: { sparsity: 0, attention: "window:size=8", kv: "int8" },
};
const shared = { model: "decoder", ...sampling, stop: ["the", "x"], n: 2, logit_bias: { 5: -3 }, user: "u" };

const verified = { model: "decoder", prompt: [5, 6, 7], max_tokens: 8, temperature: 0.7, top_k: 20, seed: 3 };

const bodies = {
  "/v1/chat/completions": [
    {
      ...shared,
      messages: [
        { role: "system", content: "be kind" },
        { role: "user", content: [{ type: "text", text: "hello" }], name: "a" },
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "c", type: "function", function: { name: "weather", arguments: '{"city":"x"}' } }],
        },
        { role: "tool", tool_call_id: "c", content: "rain" },
      ],
      ...{ max_tokens: 4, logprobs: true, top_logprobs: 2, stream: true, stream_options: { include_usage: true } },
    },
    {
      ...{ model: "decoder", max_tokens: 3, messages: [{ role: "user", content: "hi" }], tool_choice: "required" },
      tools: [{ type: "function", function: { name: "weather", description: "of a city", parameters: weather } }],
      chat_template_kwargs: { enable_thinking: false },
    },
    {
      ...{ model: "decoder", max_completion_tokens: 3, messages: [{ role: "user", content: "hi" }] },
      response_format: { type: "json_schema", json_schema: { name: "w", schema: weather, strict: true } },
    },
  ],
  "/v1/completions": [
    { ...shared, prompt: "the old man", max_tokens: 4, echo: true, logprobs: 3 },
    { model: "decoder", prompt: [[5, 6, 7], [8]], max_tokens: 2, stream: true, ignore_eos: true },
  ],
  "/v1/responses": [
    {
      ...{ model: "decoder", ...sampling, instructions: "be kind", max_output_tokens: 4, store: false },
      input: [
        { role: "user", content: [{ type: "input_text", text: "hello" }] },
        { type: "function_call", call_id: "c", name: "weather", arguments: "{}" },
        { type: "function_call_output", call_id: "c", output: "rain" },
      ],
      tools: [{ type: "function", name: "weather", parameters: weather }],
    },
    {
      ...{ model: "decoder", input: "hello", max_output_tokens: 3, stream: true },
      text: { format: { type: "json_schema", name: "w", schema: weather } },
    },
  ],
  "/v1/embeddings": [
    { model: "encoder", input: ["the old man", "the sea"], encoding_format: "base64", pooling: "mean" },
    { model: "encoder", input: [[5, 6, 7], [8]], dimensions: 64 },
  ],
  "/v1/verify/model": [{ model: "decoder" }],
  "/v1/verify/sessions": [{ ...verified, rarefy: { attention: "window:size=8", kv: "int8" } }],
  "/v1/verify/batches": [
    {
      given: [5],
      ids: [6, 7],
      laws: [
        [[6, 1]],
        [
          [5, 0.25],
          [7, 0.75],
        ],
      ],
    },
    { given: [5, 6, 7], ids: [] },
  ],
};

/** Names of the readers by the path that their bodies are sent to. */
const names = {
  chatRequest: "/v1/chat/completions",
  completionRequest: "/v1/completions",
  responseRequest: "/v1/responses",
  embeddingRequest: "/v1/embeddings",
  verifiedModelRequest: "/v1/verify/model",
  sessionRequest: "/v1/verify/sessions",
  batchRequest: "/v1/verify/batches",
};

/** @returns readers of the modules of `modulesOfReaders` */
export function requestReaders({ core, io, server }) {
  let unforeseen;
  let started;
  /** A server that lasts as long as the process: its models are loaded once. */
  const start = () =>
    server.createServer({
      models: Object.entries(models).map(([id, files]) => ({
        id,
        files: () => io.memoryFiles(id, new Map(Object.entries(files))),
        threads: 1,
      })),
      maxSequences: 8,
      onError: (error) => {
        unforeseen = error;
      },
    });

  function post(path, body) {
    started ??= start();
    unforeseen = undefined;
    return started.app.request(path, { method: "POST", headers: { "content-type": "application/json" }, body });
  }

  /** The first of what is streamed for as long as the client listens. */
  async function firstOf(response) {
    const reader = response.body.getReader();
    const { value } = await reader.read();
    return { text: new TextDecoder().decode(value), reader };
  }

  async function ask(path, body) {
    const response = await post(path, body);
    if (response.headers.get("content-type")?.startsWith("text/event-stream") && path === "/v1/verify/sessions") {
      await (await firstOf(response)).reader.cancel();
    } else judge(response, await response.text());
  }

  function judge(response, answer) {
    if (unforeseen !== undefined) throw unforeseen;
    if (response.status === 500) throw new Error(`500 ${answer.slice(0, 300)}`);
    if (response.status >= 400) throw new core.UsageError(answer);
  }

  return Object.fromEntries(
    Object.entries(names).map(([name, path]) => [
      name,
      async (random) => {
        const seeds = bodies[path];
        const seed = seeds[random(seeds.length)];
        if (path !== "/v1/verify/batches") return ask(path, damagedJson(seed, random));
        const { text, reader } = await firstOf(await post("/v1/verify/sessions", JSON.stringify(verified)));
        try {
          await ask(path, damagedJson({ session: JSON.parse(text.slice(text.indexOf("{"))).session, ...seed }, random));
        } finally {
          await reader.cancel();
        }
      },
    ]),
  );
}
