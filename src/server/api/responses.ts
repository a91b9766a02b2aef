import * as z from "zod/mini";
import type { ServerEvent } from "../http/events.js";
import type { ServedModel } from "../models/servedModel.js";
import { generationOf, ignoredFields, roomFor, samplingFields } from "./fields.js";
import { type messagesField, toChatMessages } from "./messages.js";
import { checkBody } from "./parse.js";
import { prepareChat } from "./prepareChat.js";
import { newId, nowSeconds, type Route } from "./route.js";
import { begin, type ChoiceEvent, newAnswer, note } from "./run.js";
import { type Tool, type ToolChoice, ToolText, toolName } from "./tools.js";
import { Usage } from "./usage.js";

const text = z.string().check(z.maxLength(2 ** 24));

const toolField = z.strictObject({
  type: z.literal("function", { error: 'expected "function": the server has no tools of its own' }),
  name: toolName,
  description: z.nullish(z.string()),
  parameters: z.nullish(z.record(z.string(), z.unknown())),
  strict: z.nullish(z.boolean()),
});

/** Items of a conversation: messages, calls that were made and what came of them. */
const itemField = z.union(
  [
    z.strictObject({
      type: z.optional(z.literal("message")),
      id: z.nullish(z.string()),
      status: z.nullish(z.string()),
      role: z.enum(["system", "developer", "user", "assistant"]),
      content: z.union([
        text,
        z.array(
          z.strictObject({
            type: z.enum(["input_text", "output_text", "text"]),
            text,
            annotations: z.optional(z.array(z.unknown())),
            logprobs: z.optional(z.array(z.unknown())),
          }),
        ),
      ]),
    }),
    z.strictObject({
      type: z.literal("function_call"),
      id: z.nullish(z.string()),
      status: z.nullish(z.string()),
      call_id: z.string(),
      name: toolName,
      arguments: text,
    }),
    z.strictObject({
      type: z.literal("function_call_output"),
      id: z.nullish(z.string()),
      status: z.nullish(z.string()),
      call_id: z.string(),
      output: text,
    }),
  ],
  { error: "expected a message of texts, a function_call or a function_call_output" },
);

const schema = z.strictObject({
  ...samplingFields,
  ...ignoredFields,
  input: z.union([text, z.array(itemField).check(z.minLength(1), z.maxLength(4096))], {
    error: "expected a text, or a list of items",
  }),
  instructions: z.nullish(text),
  max_output_tokens: z.nullish(z.int().check(z.gte(1), z.lte(2 ** 24))),
  stream: z.nullish(z.boolean()),
  stream_options: z.nullish(z.strictObject({ include_obfuscation: z.nullish(z.boolean()) })),
  tools: z.nullish(z.array(toolField).check(z.maxLength(128))),
  tool_choice: z.nullish(
    z.union([z.enum(["none", "auto", "required"]), z.strictObject({ type: z.literal("function"), name: toolName })]),
  ),
  parallel_tool_calls: z.nullish(z.boolean()),
  text: z.nullish(
    z.strictObject({
      format: z.nullish(
        z.discriminatedUnion("type", [
          z.strictObject({ type: z.literal("text") }),
          z.strictObject({ type: z.literal("json_object") }),
          z.strictObject({
            type: z.literal("json_schema"),
            name: z.string().check(z.maxLength(64)),
            description: z.nullish(z.string()),
            schema: z.record(z.string(), z.unknown()),
            strict: z.nullish(z.boolean()),
          }),
        ]),
      ),
      verbosity: z.nullish(z.literal("medium")),
    }),
  ),
  truncation: z.nullish(z.enum(["disabled"], { error: 'expected "disabled": nothing is left out of a conversation' })),
});

type Body = z.infer<typeof schema>;

/** POST /v1/responses, without what a server would have to store. */
export const responses: Route = async ({ scope, model: open }, raw) => {
  const body = checkBody(schema, raw);
  const model = await open(body);
  const format = body.text?.format;
  const prepared = prepareChat(model, {
    messages: toChatMessages(messagesOf(body)),
    tools: (body.tools ?? []).map(({ type, ...of }): Tool => ({ type, function: of })),
    toolChoice: choiceOf(body.tool_choice),
    format:
      format?.type === "json_schema"
        ? { type: "json_schema", json_schema: { name: format.name, schema: format.schema } }
        : format,
    variables: {},
    param: "input",
  });
  const events = begin(model, [
    {
      ...generationOf(model, body, 0),
      prompt: prepared.prompt,
      maxTokens: roomFor(model, prepared.prompt, body.max_output_tokens, "input"),
      continuesPrompt: false,
      promptLogprobs: false,
      ...(prepared.constraint && { constraint: scope.hold(await prepared.constraint()) }),
      signal: scope.signal,
    },
  ]);
  const progress = new ResponseProgress(model, body, prepared.toolNames);
  if (body.stream) return { events: streamed(events, progress) };
  for await (const event of events) for (const _ of progress.take(event));
  return { body: progress.body() };
};

function choiceOf(choice: Body["tool_choice"]): ToolChoice {
  return typeof choice === "object" && choice !== null ? { type: "function", function: { name: choice.name } } : choice;
}

/** Items in the words of chat completions. */
function messagesOf({ input, instructions }: Body): z.infer<typeof messagesField> {
  const items = typeof input === "string" ? [{ role: "user" as const, content: input }] : input;
  const system = instructions == null ? [] : [{ role: "system" as const, content: instructions }];
  const messages: z.infer<typeof messagesField> = [...system];
  for (const item of items) {
    if (item.type === "function_call") {
      const call = { id: item.call_id, type: "function" as const, function: item };
      const last = messages.at(-1);
      if (last?.role === "assistant" && last.tool_calls) last.tool_calls.push(call);
      else messages.push({ role: "assistant", content: "", tool_calls: [call] });
    } else if (item.type === "function_call_output") {
      messages.push({ role: "tool", content: item.output, tool_call_id: item.call_id });
    } else messages.push({ role: item.role, content: item.content });
  }
  return messages;
}

/** What has come of a response, and the events that tell of it. */
class ResponseProgress {
  readonly id = newId("resp_");
  readonly #created = nowSeconds();
  readonly #messageId = newId("msg_");
  readonly #answer = newAnswer();
  readonly #tools: ToolText;
  #shown = "";
  #begun = false;
  #output: object[] = [];

  constructor(
    readonly model: ServedModel,
    readonly request: Body,
    toolNames: ReadonlySet<string>,
  ) {
    this.#tools = new ToolText(toolNames);
  }

  body(): object {
    const { finish } = this.#answer;
    const usage = new Usage();
    Object.assign(usage, this.#answer);
    const { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details } = usage.body;
    const status = finish === undefined ? "in_progress" : finish === "length" ? "incomplete" : "completed";
    return {
      id: this.id,
      object: "response",
      created_at: this.#created,
      status,
      error: null,
      incomplete_details: finish === "length" ? { reason: "max_output_tokens" } : null,
      instructions: this.request.instructions ?? null,
      max_output_tokens: this.request.max_output_tokens ?? null,
      model: this.model.id,
      output: this.#output,
      parallel_tool_calls: true,
      previous_response_id: null,
      store: false,
      temperature: this.request.temperature ?? 1,
      top_p: this.request.top_p ?? 1,
      tool_choice: this.request.tool_choice ?? "auto",
      tools: this.request.tools ?? [],
      text: { format: this.request.text?.format ?? { type: "text" } },
      truncation: "disabled",
      metadata: this.request.metadata ?? {},
      usage:
        finish === undefined
          ? null
          : {
              input_tokens: prompt_tokens,
              input_tokens_details: prompt_tokens_details,
              output_tokens: completion_tokens,
              output_tokens_details: { reasoning_tokens: 0 },
              total_tokens,
            },
    };
  }

  /** Events that the message makes, by their type. */
  *take(event: ChoiceEvent): Generator<{ type: string; [field: string]: unknown }> {
    note(this.#answer, event);
    if (event.kind === "prompt") return;
    yield* this.#show(this.#tools.push(event.text));
    if (event.finish === undefined) return;
    const { text, calls } = this.#tools.end();
    yield* this.#show(text);
    if (this.#begun || calls.length === 0) yield* this.#endMessage();
    for (const { name, arguments: args } of calls) {
      const item = { id: newId("fc_"), type: "function_call", call_id: newId("call_"), name };
      const at = { output_index: this.#output.length, item_id: item.id };
      const { output_index } = at;
      yield {
        type: "response.output_item.added",
        output_index,
        item: { ...item, arguments: "", status: "in_progress" },
      };
      yield { type: "response.function_call_arguments.delta", ...at, delta: args };
      yield { type: "response.function_call_arguments.done", ...at, arguments: args };
      const done = { ...item, arguments: args, status: "completed" };
      this.#output.push(done);
      yield { type: "response.output_item.done", output_index, item: done };
    }
  }

  *#show(piece: string) {
    if (piece === "") return;
    if (!this.#begun) yield* this.#beginMessage();
    this.#shown += piece;
    yield { type: "response.output_text.delta", ...this.#place, delta: piece, logprobs: [] };
  }

  get #place() {
    return { item_id: this.#messageId, output_index: 0, content_index: 0 };
  }

  *#beginMessage() {
    this.#begun = true;
    const item = { id: this.#messageId, type: "message", role: "assistant", status: "in_progress", content: [] };
    yield { type: "response.output_item.added", output_index: 0, item };
    yield { type: "response.content_part.added", ...this.#place, part: partOf("") };
  }

  *#endMessage() {
    if (!this.#begun) yield* this.#beginMessage();
    const part = partOf(this.#shown);
    const status = this.#answer.finish === "length" ? "incomplete" : "completed";
    const item = { id: this.#messageId, type: "message", role: "assistant", status, content: [part] };
    this.#output.push(item);
    yield { type: "response.output_text.done", ...this.#place, text: this.#shown, logprobs: [] };
    yield { type: "response.content_part.done", ...this.#place, part };
    yield { type: "response.output_item.done", output_index: 0, item };
  }
}

const partOf = (content: string) => ({ type: "output_text", text: content, annotations: [], logprobs: [] });

async function* streamed(events: AsyncIterable<ChoiceEvent>, progress: ResponseProgress): AsyncGenerator<ServerEvent> {
  let sequence = 0;
  const send = (type: string, fields: object): ServerEvent => ({
    event: type,
    data: { type, sequence_number: sequence++, ...fields },
  });
  yield send("response.created", { response: progress.body() });
  yield send("response.in_progress", { response: progress.body() });
  let incomplete = false;
  for await (const event of events) {
    for (const { type, ...fields } of progress.take(event)) yield send(type, fields);
    incomplete = event.finish === "length";
  }
  yield send(incomplete ? "response.incomplete" : "response.completed", { response: progress.body() });
}
