// The npm package openai against `rarefy serve tiny-6m`: a chat as it is written, and an answer held to a schema.
//   npm install openai @mlc-ai/web-xgrammar && npx rarefy serve tiny-6m
//   node examples/server/openai.mjs
import OpenAI from "openai";

const client = new OpenAI({ baseURL: "http://127.0.0.1:8080/v1", apiKey: "none" });
const model = "tiny-6m";

const stream = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Tell me of the sea." }],
  max_tokens: 60,
  stream: true,
});
for await (const { choices } of stream) process.stdout.write(choices[0]?.delta.content ?? "");

const schema = {
  type: "object",
  properties: { ship: { type: "string", maxLength: 12 }, masts: { enum: [1, 2, 3] } },
  required: ["ship", "masts"],
  additionalProperties: false,
};
const held = await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: "Describe a ship." }],
  response_format: { type: "json_schema", json_schema: { name: "ship", schema } },
});
console.log("\n", JSON.parse(held.choices[0].message.content));
