import { Environment, Interpreter, Template } from "@huggingface/jinja";
import { FormatError } from "../core/index.js";
import { isJsonObject, type ModelFiles, readJsonFile, readTextFile } from "../io/index.js";
import { strftime } from "./strftime.js";
import type { Tokenizer } from "./tokenizer.js";

/** One turn of a chat. Templates may read more fields than `role` and `content`: tool calls, names. */
export interface ChatMessage {
  role: string;
  content: string;
  [field: string]: unknown;
}

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
      const { message } = cause as Error;
      throw new FormatError({ file, field: "chat_template", problem: `${problem}: ${message}` }, { cause });
    }
  };
  const program = guard("not a Jinja template", () => new Template(text).parsed);
  return {
    render(messages, options = {}) {
      return guard("the template stopped", () => {
        const environment = new Environment();
        const variables = {
          ...globals(options.now ?? new Date()),
          ...tokens,
          ...options.variables,
          tools: options.tools ?? null,
          messages,
          add_generation_prompt: options.addGenerationPrompt ?? true,
        };
        for (const [name, value] of Object.entries(variables)) environment.set(name, value);
        return String(new BoundedInterpreter(environment).run(program).value);
      });
    },
  };
}

const globals = (now: Date) => ({
  true: true,
  false: false,
  none: null,
  True: true,
  False: false,
  None: null,
  raise_exception(message: unknown) {
    throw new Error(String(message));
  },
  range: boundedRange,
  strftime_now: (format: unknown) => strftime(String(format), now),
});

const maxMs = 2000;
const maxCharacters = 2 ** 24;
const maxItems = 100_000;

/** The parts of the library's interpreter used here; its published types do not resolve under Node's module rules. */
interface JinjaInterpreter {
  run(program: unknown): { value: unknown };
  evaluate(statement: unknown, environment: unknown): { value: unknown };
}
const JinjaInterpreter: new (environment: unknown) => JinjaInterpreter = Interpreter;

/** Stops a template that loops or grows without end: it comes from a file. */
class BoundedInterpreter extends JinjaInterpreter {
  readonly #deadlineMs = performance.now() + maxMs;

  override evaluate(statement: unknown, environment: unknown): { value: unknown } {
    if (performance.now() > this.#deadlineMs) throw new Error(`it ran longer than ${maxMs} ms`);
    const result = super.evaluate(statement, environment);
    const { value } = result;
    if (typeof value === "string" && value.length > maxCharacters) throw new Error("a text grew too long");
    if (Array.isArray(value) && value.length > maxItems) throw new Error("a list grew too long");
    return result;
  }
}

/** Python's `range`, of bounded length. */
function boundedRange(start: number, stop?: number, step = 1): number[] {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const length = Math.max(0, Math.ceil((to - from) / step));
  if (!(length <= maxItems)) throw new Error(`range(${from}, ${to}, ${step}) is too long`);
  return Array.from({ length }, (_, i) => from + i * step);
}
