import * as z from "zod/mini";
import type { ChatMessage } from "../../text/index.js";
import { toolName } from "./tools.js";

const text = z.string().check(z.maxLength(2 ** 24));

/** Parts of a message; all of them are text. */
const parts = z
  .array(
    z.strictObject(
      {
        type: z.enum(["text", "input_text", "output_text"], { error: 'expected "text": this server reads text only' }),
        text,
      },
      { error: "expected a part with type and text" },
    ),
  )
  .check(z.maxLength(1024));

const content = z.union([text, parts], { error: "expected a text, or a list of text parts" });

const message = z.discriminatedUnion(
  "role",
  [
    z.strictObject({ role: z.literal("system"), content, name: z.nullish(z.string()) }),
    z.strictObject({ role: z.literal("developer"), content, name: z.nullish(z.string()) }),
    z.strictObject({ role: z.literal("user"), content, name: z.nullish(z.string()) }),
    z.strictObject({ role: z.literal("tool"), content, tool_call_id: z.string(), name: z.nullish(z.string()) }),
    z.strictObject({
      role: z.literal("assistant"),
      content: z.nullish(content),
      refusal: z.nullish(z.string()),
      annotations: z.nullish(z.array(z.unknown())),
      audio: z.optional(z.null()),
      name: z.nullish(z.string()),
      tool_calls: z.nullish(
        z.array(
          z.strictObject({
            id: z.string(),
            type: z.literal("function"),
            function: z.strictObject({ name: toolName, arguments: text }),
          }),
        ),
      ),
    }),
  ],
  { error: "expected a message with the role system, developer, user, assistant or tool" },
);

export const messagesField = z.array(message).check(z.minLength(1), z.maxLength(4096));

/** Messages as templates read them: contents are texts, arguments of calls are objects. */
export function toChatMessages(messages: z.infer<typeof messagesField>): ChatMessage[] {
  return messages.map((one) => {
    const role = one.role === "developer" ? "system" : one.role;
    const plain = typeof one.content === "string" ? one.content : (one.content ?? []).map((part) => part.text).join("");
    const chat: ChatMessage = { role, content: plain };
    if (one.name != null) chat.name = one.name;
    if (one.role === "tool") chat.tool_call_id = one.tool_call_id;
    if (one.role === "assistant" && one.tool_calls != null) {
      chat.tool_calls = one.tool_calls.map(({ function: call, ...rest }) => ({
        ...rest,
        function: { name: call.name, arguments: objectOf(call.arguments) },
      }));
    }
    return chat;
  });
}

/** Templates write arguments as JSON themselves. */
function objectOf(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return json;
  }
}
