import * as z from "zod/mini";

/** Names as the API allows them. */
export const toolName = z
  .string()
  .check(z.regex(/^[a-zA-Z0-9_.-]{1,64}$/, "expected letters, digits, _, . and -, 64 at most"));

const schemaField = z.record(z.string(), z.unknown());

export const toolsField = z.nullish(
  z
    .array(
      z.strictObject({
        type: z.literal("function"),
        function: z.strictObject({
          name: toolName,
          description: z.nullish(z.string()),
          parameters: z.nullish(schemaField),
          strict: z.nullish(z.boolean()),
        }),
      }),
    )
    .check(z.maxLength(128)),
);

export const toolChoiceField = z.nullish(
  z.union(
    [
      z.enum(["none", "auto", "required"]),
      z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: toolName }) }),
    ],
    { error: 'expected "none", "auto", "required" or a function by its name' },
  ),
);

/** A function that the model may call. */
export type Tool = NonNullable<z.infer<typeof toolsField>>[number];
export type ToolChoice = z.infer<typeof toolChoiceField>;

/** A call that the model wrote. `arguments` is JSON text. */
export interface ToolCall {
  readonly name: string;
  readonly arguments: string;
}

/** What a call of one of the tools looks like: what answers are held to where one must be called. */
export const callSchema = (tools: readonly Tool[]) => ({
  anyOf: tools.map(({ function: { name, parameters } }) => ({
    type: "object",
    properties: { name: { const: name }, arguments: parameters ?? { type: "object" } },
    required: ["name", "arguments"],
    additionalProperties: false,
  })),
});

const open = "<tool_call>";
const close = "</tool_call>";
const listMark = "[TOOL_CALLS]";

/**
 * Separates text from calls as they come. Models write calls in their own ways: <tool_call>{…}</tool_call> (Hermes, Qwen),
 * [TOOL_CALLS][{…}] (Mistral), or JSON alone (Llama 3). What may be a call is held back until the end.
 */
export class ToolText {
  #text = "";
  #shown = 0;

  constructor(readonly names: ReadonlySet<string>) {}

  /** @returns text that certainly belongs to no call */
  push(piece: string): string {
    this.#text += piece;
    const end = this.#certain();
    const shown = this.#text.slice(this.#shown, Math.max(this.#shown, end));
    this.#shown = Math.max(this.#shown, end);
    return shown;
  }

  /** @returns the calls, and text that was held back and is none */
  end(): { text: string; calls: ToolCall[] } {
    const calls = this.#calls();
    return calls.length > 0 ? { text: "", calls } : { text: this.#text.slice(this.#shown), calls: [] };
  }

  #certain(): number {
    if (this.names.size === 0) return this.#text.length;
    const begin = this.#text.trimStart();
    // JSON alone can only be a call if all of the answer is.
    if (begin === "" || begin.startsWith("{") || begin.startsWith("[")) return 0;
    const at = this.#text.indexOf(open);
    if (at >= 0) return at;
    for (let length = Math.min(open.length - 1, this.#text.length); length > 0; length--) {
      if (this.#text.endsWith(open.slice(0, length))) return this.#text.length - length;
    }
    return this.#text.length;
  }

  #calls(): ToolCall[] {
    if (this.names.size === 0) return [];
    const marked = this.#text.split(open).slice(1);
    if (marked.length > 0) return marked.flatMap((part) => this.#read(part.split(close)[0]));
    const all = this.#text.trim();
    return this.#read(all.startsWith(listMark) ? all.slice(listMark.length) : all);
  }

  /** Calls in a text that is JSON; none where it is not, or where it names no tool. */
  #read(text: string): ToolCall[] {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return [];
    }
    const calls = (Array.isArray(value) ? value : [value]).map((one) => this.#callOf(one));
    return calls.every((call) => call !== undefined) ? calls : [];
  }

  #callOf(value: unknown): ToolCall | undefined {
    if (typeof value !== "object" || value === null) return undefined;
    const { name, arguments: given, parameters } = value as Record<string, unknown>;
    if (typeof name !== "string" || !this.names.has(name)) return undefined;
    const args = given ?? parameters ?? {};
    return { name, arguments: typeof args === "string" ? args : JSON.stringify(args) };
  }
}
