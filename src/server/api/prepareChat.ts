import * as z from "zod/mini";
import { FormatError } from "../../core/index.js";
import { type ChatMessage, encodeChat } from "../../text/index.js";
import type { Constraint } from "../engine/request.js";
import { ApiError } from "../http/errors.js";
import type { ServedModel } from "../models/servedModel.js";
import { callSchema, type Tool, type ToolChoice } from "./tools.js";

export const formatField = z.nullish(
  z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("text") }),
    z.strictObject({ type: z.literal("json_object") }),
    z.strictObject({
      type: z.literal("json_schema"),
      json_schema: z.strictObject({
        name: z.string().check(z.maxLength(64)),
        description: z.nullish(z.string()),
        schema: z.record(z.string(), z.unknown()),
        strict: z.nullish(z.boolean()),
      }),
    }),
  ]),
);

/** A conversation, in the words of chat completions. */
export interface Conversation {
  readonly messages: readonly ChatMessage[];
  readonly tools: readonly Tool[];
  readonly toolChoice: ToolChoice;
  readonly format: z.infer<typeof formatField>;
  readonly variables: Readonly<Record<string, unknown>>;
  /** What the messages are called in errors. */
  readonly param: string;
}

export interface PreparedChat {
  readonly prompt: Uint32Array;
  /** Of the tools that the model may call. */
  readonly toolNames: ReadonlySet<string>;
  /** Makes what one choice is held to; undefined for nothing. */
  readonly constraint: (() => Promise<Constraint>) | undefined;
}

/** A conversation as tokens, and what its answer is held to. @throws ApiError */
export function prepareChat(model: ServedModel, conversation: Conversation): PreparedChat {
  const { messages, tools, toolChoice, format, variables, param } = conversation;
  if (model.template === undefined) {
    throw new ApiError(400, `${model.id} has no chat template; use /v1/completions`, {
      param: "model",
      code: "no_chat_template",
    });
  }
  const offered = toolChoice === "none" ? [] : tools;
  const named = typeof toolChoice === "object" ? toolChoice?.function.name : undefined;
  const must = named !== undefined || toolChoice === "required";
  const callable = named === undefined ? offered : offered.filter((tool) => tool.function.name === named);
  if (must && callable.length === 0) {
    const what = named === undefined ? "a tool is required and there are none" : `there is no tool ${named}`;
    throw new ApiError(400, `tool_choice: ${what}`, { param: "tool_choice", code: "invalid_value" });
  }
  let prompt: Uint32Array;
  try {
    prompt = encodeChat(model.tokenizer, model.template, messages, {
      variables,
      ...(offered.length > 0 && { tools: offered }),
    });
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    throw new ApiError(400, `${param}: the model's chat template refuses them: ${error.details.problem}`, {
      param,
      code: "invalid_value",
    });
  }
  const schema = must ? callSchema(callable) : format?.type === "json_schema" ? format.json_schema.schema : undefined;
  const held = schema !== undefined || format?.type === "json_object";
  return {
    prompt,
    toolNames: new Set(callable.map((tool) => tool.function.name)),
    constraint: held ? () => model.grammars.constraint(schema) : undefined,
  };
}
