import { expect, test } from "vitest";
import { createRarefy } from "../../src/ai-sdk/index.js";
import { listen } from "../../src/server/index.js";
import { answerOf, post, tinyServer } from "./tinyServer.js";

test("the AI SDK's models answer in this process and over HTTP as the server does", async () => {
  const server = tinyServer({ apiKeys: ["key"] });
  const messages = [{ role: "user", content: "Tell me of the sea." }];
  const body = { messages, max_tokens: 8, temperature: 0 };
  const [{ message }] = (
    await answerOf(await post(server, "/v1/chat/completions", body, { authorization: "Bearer key" }))
  ).choices;
  const prompt = [{ role: "user" as const, content: [{ type: "text" as const, text: "Tell me of the sea." }] }];
  const call = { prompt, maxOutputTokens: 8, temperature: 0 };
  const listening = await listen(server, { port: 0 });
  const inside = createRarefy({ server, apiKey: "key" });
  const outside = createRarefy({ baseURL: `${listening.url}/v1`, apiKey: "key" });
  for (const provider of [inside, outside]) {
    const { content, usage } = await provider("tiny").doGenerate(call);
    expect(content).toEqual([{ type: "text", text: message.content }]);
    expect(usage.outputTokens.total).toBe(8);
    const { stream } = await provider("tiny").doStream(call);
    const reader = stream.getReader();
    let text = "";
    for (let { done, value: part } = await reader.read(); !done; { done, value: part } = await reader.read()) {
      if (part?.type === "text-delta") text += part.delta;
    }
    expect(text).toBe(message.content);
  }
  await expect(createRarefy({ server, apiKey: "other" })("tiny").doGenerate(call)).rejects.toThrow("wants a key");
  await listening.close();
});
