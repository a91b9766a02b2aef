// The AI SDK with a model in this process: no server has to be started, nothing goes over a socket.
//   npm install rarefy ai @ai-sdk/openai-compatible
//   node examples/server/ai-sdk.mjs
import { streamText } from "ai";
import { createRarefy } from "rarefy/ai-sdk";
import { resolveModel } from "rarefy/io/node";
import { createServer } from "rarefy/server";

const server = createServer({ models: [{ id: "tiny", files: () => resolveModel("tiny-6m") }] });
const rarefy = createRarefy({ server });
const { textStream } = streamText({ model: rarefy("tiny"), prompt: "Tell me of the sea.", maxOutputTokens: 60 });
for await (const text of textStream) process.stdout.write(text);
console.log();
await server[Symbol.asyncDispose]();
