import { NetworkError } from "../core/index.js";

export interface RetryOptions {
  /** Waits between attempts, ms; one attempt more than there are waits. */
  retryDelaysMs?: readonly number[];
  signal?: AbortSignal;
}

const defaultDelaysMs = [300, 1000, 3000];
/** What a server asks for beyond this is left to the user. */
const longestWaitMs = 60_000;
/** A body that stands still for so long counts as broken off. */
const stallMs = 60_000;

/**
 * Repeats a request whose failure may pass: no answer, a broken connection, 408, 429 and 5xx.
 * @param attempt throws NetworkError for what may pass; may call `progressed` to start counting anew
 */
export async function withRetries<T>(
  attempt: (progressed: () => void) => Promise<T>,
  { retryDelaysMs = defaultDelaysMs, signal }: RetryOptions,
): Promise<T> {
  let failures = 0;
  for (;;) {
    try {
      return await attempt(() => {
        failures = 0;
      });
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof NetworkError) || !mayPass(error.status) || failures >= retryDelaysMs.length) throw error;
      const asked = error.retryAfterMs ?? 0;
      if (asked > longestWaitMs) throw error;
      await delay(Math.max(retryDelaysMs[failures++], asked), signal);
    }
  }
}

const mayPass = (status: number | undefined) =>
  status === undefined || status === 408 || status === 429 || status >= 500;

function delay(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** The error of a status that is none of success; a server that limits requests says how long to wait. */
export function statusError(response: Response, url: string): NetworkError {
  const { status, statusText } = response;
  const retryAfterMs = waitOf(response.headers.get("retry-after"));
  const limited = status === 429 ? "; the server limits how many requests it answers" : "";
  const wait = retryAfterMs === undefined ? "" : ` and asks to wait ${Math.ceil(retryAfterMs / 1000)} s`;
  return new NetworkError(`${url}: status ${status} ${statusText}${limited}${wait}`, { status, retryAfterMs });
}

/** Retry-After: seconds, or a date. */
function waitOf(header: string | null): number | undefined {
  if (header === null) return undefined;
  const ms = /^\d{1,9}$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return ms > 0 ? ms : undefined;
}

/** What asks a server; the platform's `fetch`, or what stands in for it. */
export type Fetch = (url: string, init: RequestInit) => Response | Promise<Response>;

/** `fetch` whose failure to get an answer is a NetworkError; an abort stays what it is. */
export async function request(url: string, init: RequestInit, ask: Fetch = fetch): Promise<Response> {
  try {
    return await ask(url, init);
  } catch (cause) {
    init.signal?.throwIfAborted();
    throw noAnswer(url, cause);
  }
}

/** @param cause what `fetch`, or reading what it gave, failed with */
export const noAnswer = (url: string, cause: unknown): NetworkError =>
  new NetworkError(`${url}: no answer (${reasonOf(cause)})`, { cause });

/** The pieces of a response body; a connection that breaks off is a NetworkError. The body is released at the end. */
export async function* bodyOf(response: Response, url: string, signal?: AbortSignal): AsyncGenerator<Uint8Array> {
  const reader = response.body?.getReader();
  if (reader === undefined) return;
  try {
    for (;;) {
      const { done, value } = await unlessStalled(reader.read());
      if (done) return;
      yield value;
    }
  } catch (cause) {
    signal?.throwIfAborted();
    throw new NetworkError(`${url}: the connection broke off (${reasonOf(cause)})`, { cause });
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function unlessStalled<T>(piece: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`nothing came for ${stallMs / 1000} s`)), stallMs);
    piece.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** `fetch` says "fetch failed" and keeps the reason in the cause. */
function reasonOf(error: unknown): string {
  const { message, cause } = error as Error;
  const inner = cause as { message?: string; code?: string } | undefined;
  return inner?.message || inner?.code || message;
}
