import { DeviceError, FormatError, ProblemsError, RarefyError, UsageError } from "../../core/index.js";
import { QueueFullError } from "../engine/engine.js";
import { ModelsBusyError } from "../models/modelPool.js";
import { NoGrammarError } from "../models/xgrammar.js";

/** What clients of the OpenAI API switch on. */
export type ApiErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "not_found_error"
  | "rate_limit_error"
  | "server_error";

/** An answer that is an error, as the OpenAI API writes it. */
export class ApiError extends Error {
  constructor(
    readonly status: 400 | 401 | 403 | 404 | 405 | 408 | 413 | 415 | 429 | 500 | 501 | 503,
    message: string,
    readonly details: {
      type?: ApiErrorType;
      param?: string;
      code?: string;
      retryAfterSeconds?: number;
      allow?: string;
    } = {},
  ) {
    super(message);
  }

  get body() {
    const { type = this.status >= 500 ? "server_error" : "invalid_request_error", param, code } = this.details;
    return { error: { message: this.message, type, param: param ?? null, code: code ?? null } };
  }
}

/** Errors by their class, first match first. Each says what the client can do about it. */
const known: readonly [abstract new (...args: never[]) => Error, (error: Error) => ApiError][] = [
  [ApiError, (error) => error as ApiError],
  [
    QueueFullError,
    ({ message }) =>
      new ApiError(429, `the server is busy: ${message}; try again`, {
        type: "rate_limit_error",
        code: "queue_full",
        retryAfterSeconds: 1,
      }),
  ],
  [
    ModelsBusyError,
    ({ message }) => new ApiError(503, `${message}; try again`, { code: "models_busy", retryAfterSeconds: 5 }),
  ],
  [NoGrammarError, ({ message }) => new ApiError(501, message, { code: "no_grammar" })],
  [DeviceError, ({ message }) => new ApiError(503, message, { code: "out_of_memory" })],
  [UsageError, ({ message }) => new ApiError(400, message)],
  [ProblemsError, ({ message }) => new ApiError(400, message)],
  [FormatError, ({ message }) => new ApiError(500, message, { code: "broken_model" })],
  [RarefyError, ({ message }) => new ApiError(500, message)],
];

/** What a client is told of an error. Of one that nobody foresaw it learns nothing but that. */
export function toApiError(error: unknown): ApiError {
  for (const [kind, make] of known) if (error instanceof kind) return make(error as Error);
  if (error instanceof DOMException && error.name === "TimeoutError") {
    return new ApiError(408, "the request took longer than this server allows", { code: "timeout" });
  }
  // Nobody reads this but the log of a proxy.
  if (error instanceof DOMException && error.name === "AbortError") {
    return new ApiError(503, "the request was broken off", { code: "aborted" });
  }
  return new ApiError(500, "the server failed; its log says why", { code: "internal_error" });
}
