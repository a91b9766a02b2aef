import type * as z from "zod/mini";
import { parseSchema } from "../../core/internal.js";
import { ApiError } from "../http/errors.js";

/** Nesting that no request needs; deeper ones would end in a stack overflow of whatever walks them. */
const maxDepth = 64;

/** The JSON of a body. @throws ApiError */
export function parseJson(text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ApiError(400, `the body is not JSON: ${(error as Error).message.slice(0, 200)}`, {
      code: "invalid_json",
    });
  }
  if (deeperThan(value, maxDepth)) {
    throw new ApiError(400, `the body is nested deeper than ${maxDepth} levels`, { code: "invalid_json" });
  }
  return value;
}

function deeperThan(value: unknown, depth: number): boolean {
  let level = [value];
  for (let d = 0; d <= depth; d++) {
    level = level.flatMap((one) => (typeof one === "object" && one !== null ? Object.values(one) : []));
    if (level.length === 0) return false;
  }
  return true;
}

/** Fields of the API that would change the answer, with what to do instead. */
const unsupported: Readonly<Record<string, string>> = {
  audio: "this server makes text only",
  functions: "use tools",
  function_call: "use tool_choice",
  reasoning_effort: "pass chat_template_kwargs where the model's template knows one",
  reasoning: "pass chat_template_kwargs of /v1/chat/completions where the model's template knows one",
  web_search_options: "this server searches nothing",
  previous_response_id: "this server stores nothing; send the whole conversation as input",
  conversation: "this server stores nothing; send the whole conversation as input",
  background: "this server stores nothing; stream the answer",
  include: "this server has nothing to include",
  prompt: "this server stores no prompts",
  guided_json: "use response_format",
};

/** Checks a body. @throws ApiError that names the field and what was expected */
export function checkBody<T>(schema: z.core.$ZodType<T>, body: unknown): T {
  const result = parseSchema(schema, body);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = issue.path.map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`)).join("");
  const at = path.replace(/^\./, "");
  if (issue.code === "unrecognized_keys") {
    const [key] = issue.keys;
    const param = at === "" ? key : `${at}.${key}`;
    const hint =
      at === "" && Object.hasOwn(unsupported, key) ? `: ${unsupported[key]}` : "; it would have no effect here";
    throw new ApiError(400, `${param} is not supported${hint}`, { param, code: "unsupported_parameter" });
  }
  const where = at === "" ? "the body" : at;
  throw new ApiError(400, `${where}: ${issue.message}`, { param: at || undefined, code: "invalid_value" });
}
