import { FormatError } from "../core/index.js";
import { isJsonObject, type ModelFiles, readJsonFile } from "../io/index.js";
import { readTextFile } from "../io/internal.js";
import { Callable, fromJs, parse, render, TemplateError, toText } from "./jinja/index.js";
import { strftime } from "./strftime.js";
import type { Tokenizer } from "./tokenizer.js";

/** One turn of a chat. Templates may read more fields than `role` and `content`: tool calls, names. */
export interface ChatMessage {
  role: string;
  content: string;
  [field: string]: unknown;
}

/** What a chat template sees beside the messages. */
export interface RenderOptions {
  /** Ends the prompt where the assistant's answer begins. Default true. */
  addGenerationPrompt?: boolean;
  /** What the template calls `tools`. */
  tools?: readonly unknown[];
  /** Other variables of the template, such as `enable_thinking`. */
  variables?: Readonly<Record<string, unknown>>;
  /** The date a template may print. Default: now, in UTC. */
  now?: Date;
}

/** Writes a chat as the prompt text the model was trained on; `encodeChat` makes its tokens. */
export interface ChatTemplate {
  /** @throws FormatError when the template refuses the messages or runs too long */
  render(messages: readonly ChatMessage[], options?: RenderOptions): string;
}

/** A chat as the tokens of a prompt. The template writes the special tokens itself, so the tokenizer adds none. */
export function encodeChat(
  tokenizer: Tokenizer,
  template: ChatTemplate,
  messages: readonly ChatMessage[],
  options?: RenderOptions,
): Uint32Array {
  return tokenizer.encode(template.render(messages, options), { addSpecialTokens: false });
}

const maxTemplateBytes = 2 ** 20;
const jinjaFile = "chat_template.jinja";
const configFile = "tokenizer_config.json";

/**
 * The chat template of a model: `chat_template.jinja`, else `chat_template` of `tokenizer_config.json` (a text, or named
 * texts of which "default" is taken).
 * @returns undefined when the model has none
 * @throws FormatError
 */
export async function loadChatTemplate(files: ModelFiles): Promise<ChatTemplate | undefined> {
  const config = (await readJsonFile(files, configFile)) ?? {};
  const fields = isJsonObject(config) ? config : {};
  const tokens: Record<string, string> = {};
  for (const name of ["bos_token", "eos_token", "unk_token", "pad_token"]) {
    const token = fields[name];
    const text = isJsonObject(token) ? token.content : token;
    if (typeof text === "string") tokens[name] = text;
  }
  const own = await readTextFile(files, jinjaFile, maxTemplateBytes);
  if (own !== undefined) return compile(own, tokens, `${files.location}/${jinjaFile}`);
  const file = `${files.location}/${configFile}`;
  const text = pickTemplate(fields.chat_template, file);
  return text === undefined ? undefined : compile(text, tokens, file);
}

function pickTemplate(value: unknown, file: string): string | undefined {
  if (value === undefined || value === null) return undefined;
  const named = Array.isArray(value)
    ? value.find((entry) => isJsonObject(entry) && entry.name === "default")
    : undefined;
  const text = isJsonObject(named) ? named.template : value;
  if (typeof text === "string" && text.length <= maxTemplateBytes) return text;
  throw new FormatError({
    file,
    field: "chat_template",
    problem: typeof text === "string" ? `a template of ${text.length} characters` : "no template text",
    expected: `a text of at most ${maxTemplateBytes} characters, or a list with one named "default"`,
  });
}

function compile(text: string, tokens: Readonly<Record<string, string>>, file: string): ChatTemplate {
  const guard = <T>(problem: string, run: () => T): T => {
    try {
      return run();
    } catch (cause) {
      if (!(cause instanceof TemplateError)) throw cause;
      throw new FormatError({ file, field: "chat_template", problem: `${problem}: ${cause.message}` }, { cause });
    }
  };
  const program = guard("not a chat template", () => parse(text));
  return {
    render(messages, options = {}) {
      return guard("the template stopped", () => {
        const variables = {
          ...tokens,
          ...options.variables,
          ...functions(options.now ?? new Date()),
          tools: options.tools ?? null,
          // transformers gives it to every template.
          documents: options.variables?.documents ?? null,
          messages,
          add_generation_prompt: options.addGenerationPrompt ?? true,
        };
        return render(program, new Map(Object.entries(variables).map(([name, value]) => [name, fromJs(value)])));
      });
    },
  };
}

/** What transformers adds to Jinja. */
const functions = (now: Date) => ({
  raise_exception: new Callable("raise_exception", ({ args }) => {
    throw new TemplateError(toText(args[0] ?? "it gives no reason"));
  }),
  strftime_now: new Callable("strftime_now", ({ args }) => strftime(toText(args[0] ?? ""), now)),
});
