import { describe, expect, it } from "vitest";
import { FormatError } from "../core/index.js";
import { memoryFiles } from "../io/index.js";
import { directoryFiles } from "../io/index.node.js";
import { loadChatTemplate } from "./chatTemplate.js";

const model = new URL("../../models/tiny-6m", import.meta.url).pathname;
const encode = (text: string) => new TextEncoder().encode(text);
const withFiles = (files: Record<string, string>) =>
  loadChatTemplate(memoryFiles("m", new Map(Object.entries(files).map(([name, text]) => [name, encode(text)]))));
const withConfig = (config: unknown) => withFiles({ "tokenizer_config.json": JSON.stringify(config) });
const chat = [
  { role: "system", content: "Be brief." },
  { role: "user", content: "Hi <b> {{ messages }}" },
];

describe("chat template", () => {
  it("renders that of tiny-6m", async () => {
    const template = (await loadChatTemplate(directoryFiles(model)))!;
    expect(template.render(chat)).toBe(
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <b> {{ messages }}<|im_end|>\n<|im_start|>assistant\n",
    );
    expect(template.render(chat.slice(0, 1), { addGenerationPrompt: false })).toBe(
      "<|im_start|>system\nBe brief.<|im_end|>\n",
    );
  });

  it("is absent where the model has none", async () => {
    expect(await withFiles({})).toBeUndefined();
    expect(await withConfig({ chat_template: null })).toBeUndefined();
  });

  it("takes the file before the config, and the default of a list", async () => {
    const chat_template = [
      { name: "tool_use", template: "tools" },
      { name: "default", template: "plain" },
    ];
    const config = JSON.stringify({ chat_template });
    expect((await withConfig({ chat_template }))!.render([])).toBe("plain");
    const both = await withFiles({ "tokenizer_config.json": config, "chat_template.jinja": "file" });
    expect(both!.render([])).toBe("file");
  });

  it("gives special tokens, variables, tools and the date", async () => {
    const template = (await withConfig({
      bos_token: { content: "<s>" },
      eos_token: "</s>",
      chat_template:
        "{{ bos_token }}{{ eos_token }}{% if enable_thinking %}think{% endif %}{{ tools | length }}" +
        "{{ strftime_now('%d %b %Y %H:%M%%') }}{% for i in range(3) %}{{ i }}{% endfor %}",
    }))!;
    const now = new Date(Date.UTC(2024, 6, 26, 9, 5));
    expect(template.render([], { variables: { enable_thinking: true }, tools: [{}, {}], now })).toBe(
      "<s></s>think226 Jul 2024 09:05%012",
    );
  });

  it("reports a template's own refusal", async () => {
    const template = (await withConfig({ chat_template: "{{ raise_exception('roles must alternate') }}" }))!;
    expect(() => template.render([])).toThrow(FormatError);
    expect(() => template.render([])).toThrow(/m\/tokenizer_config.json: chat_template: .*roles must alternate/);
  });

  it.each([
    ["a syntax error", "{% for %}"],
    ["an unclosed tag", "{% if true"],
    ["deep nesting", `{{ ${"(".repeat(100_000)} }}`],
  ])("refuses %s", async (_, chat_template) => {
    await expect(withConfig({ chat_template })).rejects.toThrow(FormatError);
  });

  it.each([
    ["no text", 7],
    ["an object", {}],
    ["a list without default", [{ name: "tool_use", template: "x" }]],
    ["a huge text", "x".repeat(2 ** 20 + 1)],
  ])("refuses %s", async (_, chat_template) => {
    await expect(withConfig({ chat_template })).rejects.toThrow(/chat_template/);
  });

  it.each([
    ["a long range", "{% for i in range(1000000000000) %}{% endfor %}"],
    ["a range without end", "{% for i in range(0, 1, 0) %}{% endfor %}"],
    ["nested loops", "{% for i in range(100000) %}{% for j in range(100000) %}{{ j }}{% endfor %}{% endfor %}"],
    [
      "a text that doubles",
      "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    ],
    [
      "an operation on a large text",
      "{% set x = 'a' * 16000000 %}{% for i in range(99) %}{{ x | replace('a', 'b') | length }}{% endfor %}",
    ],
    ["a text that replacing makes large", "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}"],
    ["many splits", "{% set x = 'a ' * 4000000 %}{{ x.split() | length }}"],
    [
      "a deep list",
      "{% set n = namespace(x=[]) %}{% for i in range(5000) %}{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
    ],
    ["an unknown directive", "{{ strftime_now('%q') }}"],
    ["endless recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"],
  ])("stops %s", async (_, chat_template) => {
    const template = (await withConfig({ chat_template }))!;
    expect(() => template.render([])).toThrow(FormatError);
  });

  it("parses blanks and text in time that grows with their length", async () => {
    // Quadratic parsing would take minutes for these.
    const blanks = " ".repeat(2 ** 20 - 40);
    expect((await withConfig({ chat_template: `{%- ${blanks} if true %}a{% endif %}` }))!.render([])).toBe("a");
    expect((await withConfig({ chat_template: `a${blanks}{%- if true %}b{% endif %}` }))!.render([])).toBe("ab");
    const tags = "{%- if true -%} x {%- endif -%} ".repeat(20_000);
    expect((await withConfig({ chat_template: tags }))!.render([])).toBe("x".repeat(20_000));
  });

  it("does not reach JavaScript objects", async () => {
    const template = (await withConfig({
      chat_template: "{{ messages.constructor }}|{{ ''.constructor }}|{{ range.constructor }}|{{ __proto__ }}",
    }))!;
    expect(() => template.render(chat)).not.toThrow(TypeError);
    expect(template.render(chat)).toBe("|||");
  });
});
