import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { expect } from "vitest";
import { directoryFiles } from "../../src/io/index.node.js";
import { openModel } from "../../src/pipeline/index.js";
import { collect, generateChat } from "../../src/runtime/index.js";
import { loadChatTemplate, loadTokenizer } from "../../src/text/index.js";
import { opened, studioModel } from "./studio.js";

const chatTemplate =
  "{% for message in messages %}[{{ message.role }}] {{ message.content }}<|endoftext|>\n{% endfor %}" +
  "{% if add_generation_prompt %}[assistant] {% endif %}";
const tokens = 5;
const system = "Answer in few words.";

let directory: string;

/** The small model with a chat template, under `/chat/` beside the page. */
export async function withChatModel(use: (mounts: Readonly<Record<string, string>>) => Promise<void>): Promise<void> {
  directory = await mkdtemp(join(tmpdir(), "rarefy-studio-chat-"));
  try {
    await cp(studioModel, directory, { recursive: true });
    const file = join(directory, "tokenizer_config.json");
    const config = JSON.parse(await readFile(file, "utf8"));
    await writeFile(file, JSON.stringify({ ...config, chat_template: chatTemplate }));
    await use({ "/chat/": directory });
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** Two questions, the second after an answer that was stopped. */
export async function chatAndStop(page: Page): Promise<void> {
  await page.fill("#url", "./chat/");
  await page.click("#fetch-form button");
  await opened(page, "WebAssembly");
  expect(await page.locator("#template-note").textContent()).toContain("the model's own chat template");
  await page.fill("#system", system);
  await page.fill("#temperature", "0");
  await page.fill("#prompt", "Where is the house?");
  await page.fill("#max-tokens", "900");
  await page.click("#generate");
  await page.locator("[data-variant='1'] [data-id]").nth(2).waitFor();
  await page.click("#stop");
  await page.locator("#generate:visible").waitFor();
  const answers = page.locator("[data-variant='0'] .answer");
  const written = (at: number) =>
    answers
      .nth(at)
      .locator("[data-id]")
      .evaluateAll((pieces) => pieces.map((piece) => [Number((piece as HTMLElement).dataset.id), piece.textContent]));
  const stopped = await written(0);
  expect(stopped.length).toBeLessThan(899);
  expect(await answers.first().textContent()).toContain("(stopped)");
  expect(await page.inputValue("#prompt")).toBe("");

  await page.fill("#prompt", "And the lane?");
  await page.fill("#max-tokens", String(tokens));
  await page.keyboard.press("Tab");
  await page.click("#generate");
  await page.locator("#verdict", { hasText: "B ran" }).waitFor();
  const second = await written(1);
  expect(await page.locator("[data-variant='0'] .question").allTextContents()).toEqual([
    "Where is the house?",
    "And the lane?",
  ]);

  // The same chat in Node.js.
  const files = directoryFiles(directory);
  const [tokenizer, template] = [await loadTokenizer(files), await loadChatTemplate(files)];
  using model = await openModel(files);
  const messages = [
    { role: "system", content: system },
    { role: "user", content: "Where is the house?" },
    { role: "assistant", content: stopped.map(([, text]) => text).join("") },
    { role: "user", content: "And the lane?" },
  ];
  const chat = { tokenizer, template: template! };
  const { tokenIds } = await collect(generateChat(model.model, chat, messages, { maxTokens: tokens, temperature: 0 }));
  expect(second.map(([id]) => id)).toEqual(tokenIds);

  await page.click("#new-chat");
  expect(await page.locator(".question").count()).toBe(0);
}
