// The process that the model runs in: answers { prompt, maxTokens } with { text } piece by piece, then { done: true } or { error }.
import { generateText, loadTokenizer, openModel } from "rarefy";
import { resolveModel } from "rarefy/io/node";

const files = await resolveModel(process.argv[2]);
const tokenizer = await loadTokenizer(files);
const { model } = await openModel(files, { weights: "q8" });

process.parentPort.on("message", ({ ports: [port] }) => {
  let stopping;
  port.on("message", async ({ data: { prompt, maxTokens } }) => {
    // A new question ends the answer to the last one.
    stopping?.abort();
    stopping = new AbortController();
    const { signal } = stopping;
    try {
      for await (const { text } of generateText(model, tokenizer, prompt, { maxTokens, signal }))
        port.postMessage({ text });
      port.postMessage({ done: true });
    } catch (error) {
      if (!signal.aborted) port.postMessage({ error: error.message });
    }
  });
  port.on("close", () => stopping?.abort());
  port.start();
});
