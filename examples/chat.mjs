// A chat whose answers come in word by word. Every turn runs only what is new of it.
//   node chat.mjs org/name
import { createInterface } from "node:readline/promises";
import { generateChat, loadChatTemplate, loadTokenizer, openModel, Sequence } from "rarefy";
import { resolveModel } from "rarefy/io/node";

const files = await resolveModel(process.argv[2] ?? "tiny-6m");
const [tokenizer, template] = await Promise.all([loadTokenizer(files), loadChatTemplate(files)]);
if (template === undefined) throw new Error(`${files.location} has no chat template`);
const opened = await openModel(files, { weights: "q8" });
const sequence = new Sequence(opened.model, Math.min(4096, opened.model.config.maxPositions));

const messages = [];
const lines = createInterface({ input: process.stdin, output: process.stdout, prompt: "\n> " });
lines.prompt();
for await (const content of lines) {
  messages.push({ role: "user", content });
  let answer = "";
  // Ctrl-C in the terminal ends the program; a page or a server hands an AbortSignal over as `signal`.
  for await (const { text } of generateChat(opened.model, { tokenizer, template }, messages, {
    sequence,
    maxTokens: 128,
    temperature: 0.7,
  })) {
    answer += text;
    process.stdout.write(text);
  }
  messages.push({ role: "assistant", content: answer });
  lines.prompt();
}
sequence[Symbol.dispose]();
opened[Symbol.dispose]();
