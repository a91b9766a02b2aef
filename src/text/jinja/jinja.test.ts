import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { memoryFiles } from "../../io/index.js";
import { loadChatTemplate } from "../chatTemplate.js";

const { cases }: { cases: { template: string; want: string | null }[] } = JSON.parse(
  readFileSync(new URL("golden.json", import.meta.url), "utf8"),
);
const messages = [
  { role: "user", content: "hi" },
  {
    role: "assistant",
    content: "Zoë 👍 it's\n",
    n: 1.5,
    tool_calls: [{ name: "f", arguments: { x: [1, 2, { y: null }], b: true } }],
  },
];

it.each(cases)("as Jinja2: $template", async ({ template, want }) => {
  const config = JSON.stringify({ bos_token: "<s>", eos_token: "</s>", chat_template: template });
  const files = memoryFiles("m", new Map([["tokenizer_config.json", new TextEncoder().encode(config)]]));
  const rendered = loadChatTemplate(files).then((loaded) =>
    loaded!.render(messages, { now: new Date(Date.UTC(2024, 6, 6, 9, 5, 7)) }),
  );
  if (want === null) await expect(rendered).rejects.toThrow(/m\/tokenizer_config\.json: chat_template/);
  else expect(await rendered).toBe(want);
});
