// LangChain.js against `rarefy serve tiny-6m`.
//   npm install @langchain/openai && npx rarefy serve tiny-6m
//   node examples/server/langchain.mjs
import { ChatOpenAI } from "@langchain/openai";

const model = new ChatOpenAI({
  model: "tiny-6m",
  apiKey: "none",
  maxTokens: 60,
  configuration: { baseURL: "http://127.0.0.1:8080/v1" },
});
for await (const { content } of await model.stream("Tell me of the sea.")) process.stdout.write(content);
console.log();
