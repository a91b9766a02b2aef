import * as z from "zod/mini";
import type { GenerationRequest } from "../engine/request.js";
import { ApiError } from "../http/errors.js";
import type { ServerEvent } from "../http/events.js";
import type { ServedModel } from "../models/servedModel.js";
import { completionFields, generationOf, mostLogprobs, roomFor } from "./fields.js";
import { chatLogprobs } from "./logprobs.js";
import { messagesField, toChatMessages } from "./messages.js";
import { checkBody } from "./parse.js";
import { formatField, type PreparedChat, prepareChat } from "./prepareChat.js";
import { newId, nowSeconds, type Route, type RouteContext } from "./route.js";
import { begin, type ChoiceEvent, collectAnswers } from "./run.js";
import { type ToolCall, ToolText, toolChoiceField, toolsField } from "./tools.js";
import { Usage } from "./usage.js";

const schema = z.strictObject({
  ...completionFields,
  messages: messagesField,
  max_tokens: z.nullish(z.int().check(z.gte(1), z.lte(2 ** 24))),
  max_completion_tokens: z.nullish(z.int().check(z.gte(1), z.lte(2 ** 24))),
  logprobs: z.nullish(z.boolean()),
  top_logprobs: z.nullish(z.int().check(z.gte(0), z.lte(mostLogprobs))),
  response_format: formatField,
  tools: toolsField,
  tool_choice: toolChoiceField,
  /** A model writes as many calls as it likes. */
  parallel_tool_calls: z.nullish(z.boolean()),
  /** Further variables of the chat template, such as enable_thinking. */
  chat_template_kwargs: z.nullish(z.record(z.string(), z.unknown())),
  modalities: z.nullish(z.array(z.literal("text", { error: 'expected "text"' }))),
  /** A guess at the answer; it would only make it faster. */
  prediction: z.optional(z.unknown()),
});

type Body = z.infer<typeof schema>;

/** POST /v1/chat/completions */
export const chatCompletions: Route = async (context, raw) => {
  const body = checkBody(schema, raw);
  if (body.top_logprobs != null && body.logprobs !== true) {
    throw new ApiError(400, "top_logprobs needs logprobs: true", { param: "top_logprobs", code: "invalid_value" });
  }
  const model = await context.model(body);
  const prepared = prepareChat(model, {
    messages: toChatMessages(body.messages),
    tools: body.tools ?? [],
    toolChoice: body.tool_choice,
    format: body.response_format,
    variables: body.chat_template_kwargs ?? {},
    param: "messages",
  });
  const requests: GenerationRequest[] = [];
  for (let choice = 0; choice < (body.n ?? 1); choice++) {
    requests.push(await requestOf(context, model, body, prepared, choice));
  }
  const events = begin(model, requests);
  const head = { id: newId("chatcmpl-"), created: nowSeconds(), model: model.id };
  if (body.stream) return { events: streamed(events, head, model, body, prepared.toolNames) };

  const answers = await collectAnswers(events, requests.length);
  const usage = new Usage();
  const choices = answers.map((answer, index) => {
    if (index === 0) {
      usage.promptTokens = answer.promptTokens;
      usage.cachedTokens = answer.cachedTokens;
    }
    usage.completionTokens += answer.completionTokens;
    const tools = new ToolText(prepared.toolNames);
    const shown = tools.push(answer.text);
    const { text, calls } = tools.end();
    const content = `${shown}${text}`;
    return {
      index,
      message: {
        role: "assistant",
        content: calls.length > 0 && content.trim() === "" ? null : content,
        refusal: null,
        ...(calls.length > 0 && { tool_calls: calls.map(callBody) }),
      },
      logprobs: body.logprobs ? chatLogprobs(model.tokens, answer.tokens) : null,
      finish_reason: calls.length > 0 ? "tool_calls" : (answer.finish ?? "stop"),
    };
  });
  return { body: { ...head, object: "chat.completion", choices, usage: usage.body } };
};

async function requestOf(
  { scope }: RouteContext,
  model: ServedModel,
  body: Body,
  { prompt, constraint }: PreparedChat,
  choice: number,
): Promise<GenerationRequest> {
  const wanted = body.max_completion_tokens ?? body.max_tokens;
  return {
    ...generationOf(model, body, choice),
    prompt,
    maxTokens: roomFor(model, prompt, wanted, "messages"),
    continuesPrompt: false,
    ...(body.logprobs && { logprobs: body.top_logprobs ?? 0 }),
    promptLogprobs: false,
    ...(constraint && { constraint: scope.hold(await constraint()) }),
    signal: scope.signal,
  };
}

const callBody = ({ name, arguments: args }: ToolCall) => ({
  id: newId("call_"),
  type: "function",
  function: { name, arguments: args },
});

async function* streamed(
  events: AsyncIterable<ChoiceEvent>,
  head: object,
  model: ServedModel,
  body: Body,
  toolNames: ReadonlySet<string>,
): AsyncGenerator<ServerEvent> {
  const withUsage = body.stream_options?.include_usage === true;
  const usage = new Usage();
  const texts = new Map<number, ToolText>();
  const chunk = (index: number, delta: object, logprobs: object | null, finish: string | null): ServerEvent => ({
    data: {
      ...head,
      object: "chat.completion.chunk",
      choices: [{ index, delta, logprobs, finish_reason: finish }],
      ...(withUsage && { usage: null }),
    },
  });
  for await (const event of events) {
    const { choice } = event;
    if (event.kind === "prompt") {
      if (choice === 0) {
        usage.promptTokens = event.promptTokens;
        usage.cachedTokens = event.cachedTokens;
      }
      texts.set(choice, new ToolText(toolNames));
      yield chunk(choice, { role: "assistant", content: "", refusal: null }, null, null);
      continue;
    }
    usage.completionTokens++;
    const tools = texts.get(choice)!;
    const shown = tools.push(event.text);
    const logprobs = event.logprob && body.logprobs ? chatLogprobs(model.tokens, [event.logprob]) : null;
    if (shown !== "" || logprobs !== null) yield chunk(choice, { content: shown }, logprobs, null);
    if (event.finish === undefined) continue;
    const { text, calls } = tools.end();
    if (text !== "") yield chunk(choice, { content: text }, null, null);
    for (const [index, call] of calls.entries()) {
      yield chunk(choice, { tool_calls: [{ index, ...callBody(call) }] }, null, null);
    }
    yield chunk(choice, {}, null, calls.length > 0 ? "tool_calls" : event.finish);
  }
  if (withUsage) {
    yield { data: { ...head, object: "chat.completion.chunk", choices: [], usage: usage.body } };
  }
  yield { data: "[DONE]" };
}
