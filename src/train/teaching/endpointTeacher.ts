import * as z from "zod/mini";
import { FormatError, NetworkError, UsageError } from "../../core/index.js";
import { checkSchema } from "../../core/internal.js";
import { isJsonObject, parseJson } from "../../io/index.js";
import { bodyOf, type Fetch, type RetryOptions, request, statusError, withRetries } from "../../io/internal.js";
import type { RecordTeacher, TeachingAnswer, TeachingQuestion } from "./lessons.js";

/** A model behind an OpenAI-compatible address. */
export interface EndpointTeacherOptions extends Pick<RetryOptions, "retryDelaysMs"> {
  /** What stands before `/chat/completions` and `/completions`: "https://host/v1". */
  url: string;
  /** Which of its models. */
  model: string;
  /** Sent to this address alone, as `Authorization: Bearer`; in no message, record or file. */
  apiKey?: string;
  /** Asks `/chat/completions`, else `/completions`. */
  chat: boolean;
  /** Tokens of an answer at most. Default 256. */
  maxTokens?: number;
  /** Default 0. */
  temperature?: number;
  topP?: number;
  stop?: readonly string[];
  /** How long one answer may take. Default 600 000. */
  timeoutMs?: number;
  /** Bytes of one answer at most. Default 4 MiB. */
  maxAnswerBytes?: number;
  /** Default: the platform's. */
  fetch?: Fetch;
}

const answerSchema = z.object({
  choices: z
    .array(
      z.object({
        message: z.optional(z.object({ content: z.nullish(z.string()) })),
        text: z.optional(z.string()),
        finish_reason: z.nullish(z.string()),
      }),
    )
    .check(z.minLength(1), z.maxLength(16)),
});

const answerLimits = { depth: 32, values: 100_000 };
/** Ends of an answer that are none of its own. */
const cutReasons = ["length", "content_filter"];
/** Of what a server says of an error. */
const maxErrorBytes = 2 ** 16;

/**
 * @returns a teacher that asks again where a failure may pass; it throws NetworkError for one that stays, and FormatError for
 * what is no answer
 * @throws UsageError for an address with credentials, a query or a protocol other than HTTP, and for a key that no header may hold
 */
export function endpointTeacher(options: EndpointTeacherOptions): RecordTeacher {
  const { url, model, apiKey, chat, maxTokens = 256, temperature = 0, topP, stop, retryDelaysMs } = options;
  const { timeoutMs = 600_000, maxAnswerBytes = 2 ** 22 } = options;
  const base = baseOf(url);
  if (apiKey !== undefined && !/^[\x21-\x7e]+$/.test(apiKey)) {
    throw new UsageError("the key of the endpoint is empty or has characters that no header may hold");
  }
  const address = `${base}/${chat ? "chat/completions" : "completions"}`;
  const settings = { model, max_tokens: maxTokens, temperature, ...(topP !== undefined && { top_p: topP }) };
  const headers = {
    "content-type": "application/json",
    accept: "application/json",
    ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }),
  };

  async function ask({ text, messages, seed }: TeachingQuestion, signal: AbortSignal): Promise<TeachingAnswer> {
    const body = JSON.stringify({
      ...settings,
      ...(stop !== undefined && stop.length > 0 && { stop }),
      ...(temperature > 0 && { seed }),
      ...(chat ? { messages } : { prompt: text }),
    });
    // A key goes where it was meant to go: redirections are not followed.
    const init: RequestInit = { method: "POST", headers, body, signal, redirect: "manual" };
    const response = await request(address, init, options.fetch);
    try {
      if (!response.ok) throw await refusal(response, signal);
      return answerOf(await bytesOf(response, maxAnswerBytes, signal));
    } finally {
      await response.body?.cancel().catch(() => {});
    }
  }

  /** @throws FormatError when there are more than `most` */
  async function bytesOf(response: Response, most: number, signal: AbortSignal): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    for await (const piece of bodyOf(response, address, signal)) {
      length += piece.byteLength;
      if (length > most) {
        throw new FormatError({ file: address, problem: `an answer of more than ${most} bytes`, expected: "fewer" });
      }
      pieces.push(piece);
    }
    return new Uint8Array(await new Blob(pieces as Uint8Array<ArrayBuffer>[]).arrayBuffer());
  }

  /** The error of a status, with what the server says of it. */
  async function refusal(response: Response, signal: AbortSignal): Promise<NetworkError> {
    const { message, status, retryAfterMs } = statusError(response, address);
    const said = await bytesOf(response, maxErrorBytes, signal)
      .then(saidIn)
      .catch(() => undefined);
    return new NetworkError(said === undefined ? message : `${message}: ${withoutKey(said)}`, { status, retryAfterMs });
  }

  const withoutKey = (text: string) => (apiKey === undefined ? text : text.replaceAll(apiKey, "[key]")).slice(0, 400);

  function answerOf(bytes: Uint8Array): TeachingAnswer {
    const hint = "Is it the address of an OpenAI-compatible server, as https://host/v1?";
    if (/^\s*</.test(new TextDecoder().decode(bytes.subarray(0, 256)))) {
      throw new FormatError({ file: address, problem: "a web page in place of an answer", expected: "JSON", hint });
    }
    const [{ message, text, finish_reason: reason }] = checkSchema(
      answerSchema,
      documentIn(bytes, hint),
      address,
      hint,
    ).choices;
    const finished = !cutReasons.includes(reason ?? "");
    return { text: (chat ? message?.content : text) ?? "", finished };
  }

  /** What JSON.parse says of a text quotes it, and a server may answer with what it was sent. */
  function documentIn(bytes: Uint8Array, hint: string): unknown {
    try {
      return parseJson(bytes, address, answerLimits);
    } catch (cause) {
      if (!(cause instanceof FormatError)) throw cause;
      throw new FormatError({ ...cause.details, problem: withoutKey(cause.details.problem), hint });
    }
  }

  return {
    location: `${model} at ${base}`,
    identity: { base, chat, ...settings, stop },
    answer(question, outer) {
      const attempt = async () => {
        const late = AbortSignal.timeout(timeoutMs);
        try {
          return await ask(question, outer === undefined ? late : AbortSignal.any([outer, late]));
        } catch (cause) {
          if (outer?.aborted !== true && late.aborted) {
            throw new NetworkError(`${address}: no answer within ${timeoutMs / 1000} s`, { cause });
          }
          throw cause;
        }
      };
      return withRetries(attempt, { signal: outer, retryDelaysMs });
    },
  };
}

/** @throws UsageError, which does not repeat what may be secret */
function baseOf(url: string): string {
  const parsed = URL.canParse(url) ? new URL(url) : undefined;
  if (parsed === undefined || !/^https?:$/.test(parsed.protocol)) {
    throw new UsageError("the endpoint is no HTTP address; expected one as https://host/v1");
  }
  if (parsed.username !== "" || parsed.password !== "" || parsed.search !== "" || parsed.hash !== "") {
    throw new UsageError(
      "the address of the endpoint has credentials, a query or a fragment; expected https://host/v1",
    );
  }
  return parsed.href.replace(/\/+$/, "");
}

/** What an error document says. */
function saidIn(bytes: Uint8Array): string | undefined {
  const document = parseJson(bytes, "error", answerLimits);
  const error = isJsonObject(document) ? document.error : undefined;
  const said = isJsonObject(error) ? error.message : error;
  return typeof said === "string" && said !== "" ? said : undefined;
}
