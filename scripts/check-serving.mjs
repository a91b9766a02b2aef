/**
 * Asks `rarefy serve` as the clients that people use do: curl, openai (npm and Python), the AI SDK, LangChain.js, and lm-eval's
 * way of scoring. They are installed into a temporary folder; nothing of this is part of the package or of CI.
 *
 *   npm run build && node scripts/check-serving.mjs [--no-python]
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { readOptions } from "./options.mjs";

const { values } = readOptions({ options: { "no-python": { type: "boolean", default: false } } });
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "rarefy-serving-"));
const python = !values["no-python"];
const key = "a key of its own";

const packages = ["openai", "ai", "@ai-sdk/openai-compatible", "@langchain/openai", "@langchain/core", "zod"];

/** Each is run on its own; what it throws is a failure. */
const scripts = {
  "openai (npm)": `
import assert from "node:assert/strict";
import OpenAI from "openai";
const client = new OpenAI({ baseURL: process.env.URL, apiKey: process.env.KEY });
const model = "tiny";
const messages = [{ role: "user", content: "Tell me of the sea." }];
assert.equal((await client.models.list()).data[0].id, model);
const whole = await client.chat.completions.create({ model, messages, max_tokens: 12, temperature: 0, logprobs: true, top_logprobs: 3 });
assert.equal(whole.choices[0].logprobs.content.length, 12);
let text = "";
let usage;
for await (const chunk of await client.chat.completions.create({ model, messages, max_tokens: 12, temperature: 0, stream: true, stream_options: { include_usage: true } })) {
  text += chunk.choices[0]?.delta.content ?? "";
  usage ??= chunk.usage;
}
assert.equal(text, whole.choices[0].message.content);
assert.equal(usage.completion_tokens, 12);
const schema = { type: "object", properties: { sail: { enum: ["up", "down"] } }, required: ["sail"], additionalProperties: false };
const held = await client.chat.completions.create({ model, messages, max_tokens: 40, response_format: { type: "json_schema", json_schema: { name: "s", schema, strict: true } } });
assert.ok(["up", "down"].includes(JSON.parse(held.choices[0].message.content).sail));
const tools = [{ type: "function", function: { name: "hoist", parameters: schema } }];
const called = await client.chat.completions.create({ model, messages, max_tokens: 60, tools, tool_choice: "required" });
assert.equal(called.choices[0].message.tool_calls[0].function.name, "hoist");
const runner = client.chat.completions.stream({ model, messages, max_tokens: 60, tools, tool_choice: "required" });
assert.equal((await runner.finalChatCompletion()).choices[0].message.tool_calls[0].function.name, "hoist");
const answer = await client.responses.create({ model, input: "Tell me of the sea.", max_output_tokens: 12, temperature: 0 });
assert.equal(answer.output_text, text);
const kinds = [];
for await (const event of await client.responses.create({ model, input: "The sea", max_output_tokens: 4, stream: true })) kinds.push(event.type);
assert.equal(kinds[0], "response.created");
await assert.rejects(client.embeddings.create({ model, input: "the sea" }), (error) => error.status === 400 && error.code === "unsupported_model");
await assert.rejects(client.chat.completions.create({ model: "other", messages }), OpenAI.NotFoundError);
await assert.rejects(new OpenAI({ baseURL: process.env.URL, apiKey: "wrong" }).models.list(), OpenAI.AuthenticationError);
const gone = await client.chat.completions.create({ model, messages, max_tokens: 900, stream: true });
for await (const _ of gone) break;
`,
  "AI SDK": `
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, jsonSchema, streamText, tool } from "ai";
const provider = createOpenAICompatible({ name: "rarefy", baseURL: process.env.URL, apiKey: process.env.KEY, includeUsage: true, supportsStructuredOutputs: true });
const model = provider("tiny");
const { text, usage } = await generateText({ model, prompt: "Tell me of the sea.", maxOutputTokens: 12, temperature: 0 });
assert.equal(usage.outputTokens, 12);
let streamed = "";
for await (const piece of streamText({ model, prompt: "Tell me of the sea.", maxOutputTokens: 12, temperature: 0 }).textStream) streamed += piece;
assert.equal(streamed, text);
const schema = jsonSchema({ type: "object", properties: { sail: { type: "string", enum: ["up", "down"] } }, required: ["sail"], additionalProperties: false });
const { object } = await generateObject({ model, prompt: "The sail", schema, maxOutputTokens: 40 });
assert.ok(["up", "down"].includes(object.sail));
const { toolCalls } = await generateText({ model, prompt: "The sail", tools: { hoist: tool({ inputSchema: schema }) }, toolChoice: "required", maxOutputTokens: 60 });
assert.equal(toolCalls[0].toolName, "hoist");
`,
  "LangChain.js": `
import assert from "node:assert/strict";
import { ChatOpenAI } from "@langchain/openai";
import { z } from "zod";
const model = new ChatOpenAI({ model: "tiny", apiKey: process.env.KEY, maxTokens: 12, temperature: 0, configuration: { baseURL: process.env.URL } });
const { content } = await model.invoke("Tell me of the sea.");
let streamed = "";
for await (const chunk of await model.stream("Tell me of the sea.")) streamed += chunk.content;
assert.equal(streamed, content);
const wide = new ChatOpenAI({ model: "tiny", apiKey: process.env.KEY, maxTokens: 60, temperature: 0, configuration: { baseURL: process.env.URL } });
const sail = await wide.withStructuredOutput(z.object({ sail: z.enum(["up", "down"]) }), { method: "jsonSchema", name: "sail" }).invoke("The sail");
assert.ok(["up", "down"].includes(sail.sail));
`,
};

const pythonScript = `
import os
from openai import OpenAI, AuthenticationError, BadRequestError
client = OpenAI(base_url=os.environ["URL"], api_key=os.environ["KEY"])
messages = [{"role": "user", "content": "Tell me of the sea."}]
whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0, logprobs=True, top_logprobs=2)
assert len(whole.choices[0].logprobs.content) == 12
text = "".join(chunk.choices[0].delta.content or "" for chunk in client.chat.completions.create(model="tiny", messages=messages, max_tokens=12, temperature=0, stream=True))
assert text == whole.choices[0].message.content
# As lm-eval scores: the prompt and its log probabilities come back.
scored = client.completions.create(model="tiny", prompt=[40, 41, 42, 43], max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1234)
logprobs = scored.choices[0].logprobs
assert len(logprobs.token_logprobs) == 5 and logprobs.token_logprobs[0] is None
assert all(value < 0 for value in logprobs.token_logprobs[1:])
response = client.responses.create(model="tiny", input="Tell me of the sea.", max_output_tokens=12, temperature=0)
assert response.output_text == text
try:
    client.completions.create(model="tiny", prompt="a", temperature=9)
    raise SystemExit("a temperature of 9 was taken")
except BadRequestError as error:
    assert error.param == "temperature", error
try:
    OpenAI(base_url=os.environ["URL"], api_key="wrong").models.list()
    raise SystemExit("a wrong key was taken")
except AuthenticationError:
    pass
`;

function curl(url) {
  const run = (...args) => execFileSync("curl", ["-sS", ...args], { encoding: "utf8" });
  const headers = ["-H", `authorization: Bearer ${key}`, "-H", "content-type: application/json"];
  const body = { prompt: "The sea", max_tokens: 4, temperature: 0 };
  const whole = JSON.parse(run(...headers, `${url}/completions`, "-d", JSON.stringify(body)));
  const stream = run("-N", ...headers, `${url}/completions`, "-d", JSON.stringify({ ...body, stream: true }));
  if (!stream.endsWith("data: [DONE]\n\n")) throw new Error(`a stream that ends so: ${stream.slice(-80)}`);
  const lines = stream.split("\n\n").filter((line) => line.startsWith("data: {"));
  const text = lines.map((line) => JSON.parse(line.slice(6)).choices[0].text).join("");
  if (text !== whole.choices[0].text) throw new Error(`${text} and ${whole.choices[0].text}`);
  const status = run("-o", "/dev/null", "-w", "%{http_code}", `${url}/models`);
  if (status !== "401") throw new Error(`without a key ${status}`);
}

const args = [join(root, "dist/cli/main.js"), "serve", "tiny=tiny-6m", "--port", "0", "--quiet"];
const server = spawn(process.execPath, args, {
  stdio: ["ignore", "pipe", "inherit"],
  env: { ...process.env, RAREFY_API_KEY: key },
});
let failed = 0;
const check = (name, run) => {
  try {
    run();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}\n${error.stderr ?? error.stack}`);
  }
};
try {
  const exited = new Promise((resolve) => server.once("exit", resolve));
  let url;
  for await (const line of createInterface({ input: server.stdout })) {
    url = /http:\S+/.exec(line)?.[0];
    if (url !== undefined) break;
  }
  const env = { ...process.env, URL: url, KEY: key };
  check("curl", () => curl(url));
  const npm = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", folder, ...packages];
  execFileSync("npm", npm, { stdio: ["ignore", "ignore", "inherit"] });
  for (const [name, source] of Object.entries(scripts)) {
    const file = join(folder, `${name.replaceAll(/\W/g, "")}.mjs`);
    writeFileSync(file, source);
    check(name, () =>
      execFileSync(process.execPath, [file], { env, encoding: "utf8", timeout: 300_000, stdio: "pipe" }),
    );
  }
  if (python) {
    execFileSync("python3", ["-m", "venv", join(folder, "venv")]);
    execFileSync(join(folder, "venv/bin/pip"), ["install", "-q", "openai"], { stdio: ["ignore", "ignore", "inherit"] });
    check("openai (Python)", () =>
      execFileSync(join(folder, "venv/bin/python"), ["-c", pythonScript], { env, encoding: "utf8", stdio: "pipe" }),
    );
  }
  server.kill("SIGTERM");
  const code = await exited;
  if (code !== 0) failed++;
  console.log(`the server ended with ${code}`);
} finally {
  server.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
}
process.exitCode = failed === 0 ? 0 : 1;
