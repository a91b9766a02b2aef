import * as z from "zod/mini";
import { FormatError, NetworkError, UsageError } from "../../core/index.js";
import { checkSchema, cleaned, clip } from "../../core/internal.js";
import { noAnswer, request } from "../../io/internal.js";

/** How a server is asked. */
export interface LinkOptions {
  /** Shown as `Authorization: Bearer`. */
  readonly key?: string;
  /** Default: the platform's own. */
  readonly fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** How long an answer may take. Default 120 s. */
  readonly timeoutMs?: number;
}

/** No answer here is longer. */
const mostCharacters = 2 ** 16;

const errorSchema = z.object({ error: z.object({ message: z.string() }) });

/** Asks a server, and believes nothing that it says. */
export class Link {
  /** @param url ending in /v1 @throws UsageError for what is no address */
  constructor(
    readonly url: string,
    readonly options: LinkOptions,
  ) {
    if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
      throw new UsageError(`${url} is not the address of a server; expected one as http://127.0.0.1:8080/v1`);
    }
  }

  /** @throws FormatError that names the field of an answer, NetworkError where there is none, or an error */
  async ask<T>(path: string, body: object, schema: z.core.$ZodType<T>, signal: AbortSignal | undefined): Promise<T> {
    const { response, address, limit } = await this.#post(path, body, signal);
    try {
      return checkSchema(schema, parse(await this.#text(response, address, signal), address), address);
    } finally {
      clearTimeout(limit);
    }
  }

  /**
   * Opens a stream of events; what comes after the first is thrown away.
   * @param signal aborted to end it
   * @returns the first, and a promise that resolves, with the last one's data, once the server has ended it
   */
  async listen<T>(path: string, body: object, schema: z.core.$ZodType<T>, signal: AbortSignal) {
    const { response, address, limit } = await this.#post(path, body, signal);
    const reader = response.body?.pipeThrough(new TextDecoderStream() as never).getReader();
    if (reader === undefined) throw new FormatError({ file: address, problem: "the answer has no body" });
    try {
      let text = "";
      while (!text.includes("\n\n")) {
        const { done, value } = (await reader.read()) as ReadableStreamReadResult<string>;
        if (done) throw new FormatError({ file: address, problem: "the stream ends before its first event" });
        text += value;
        if (text.length > mostCharacters) throw tooLong(address);
      }
      const data = /^data: (.*)$/m.exec(text.slice(0, text.indexOf("\n\n")))?.[1];
      if (data === undefined) throw new FormatError({ file: address, problem: "the first event has no data" });
      const first = checkSchema(schema, parse(data, address), address);
      return { first, ended: drained(reader as ReadableStreamDefaultReader<string>) };
    } catch (error) {
      await reader.cancel().catch(() => {});
      throw this.#reason(error, address, signal);
    } finally {
      clearTimeout(limit);
    }
  }

  async #post(path: string, body: object, signal: AbortSignal | undefined) {
    const { key, fetch: ask, timeoutMs = 120_000 } = this.options;
    const address = `${this.url.replace(/\/+$/, "")}${path}`;
    const late = new AbortController();
    const seconds = timeoutMs / 1000;
    const limit = setTimeout(() => late.abort(new NetworkError(`${address}: no answer in ${seconds} s`)), timeoutMs);
    const headers = {
      "content-type": "application/json",
      ...(key !== undefined && { authorization: `Bearer ${key}` }),
    };
    try {
      const either = signal === undefined ? late.signal : AbortSignal.any([signal, late.signal]);
      const init = { method: "POST", headers, body: JSON.stringify(body), signal: either };
      const response = await request(address, init, ask);
      if (!response.ok) throw await this.#refused(response, address, signal);
      return { response, address, limit };
    } catch (error) {
      clearTimeout(limit);
      throw this.#reason(error, address, signal);
    }
  }

  /** What a server says of why it does not. */
  async #refused(response: Response, address: string, signal: AbortSignal | undefined): Promise<NetworkError> {
    const { status } = response;
    const text = await this.#text(response, address, signal).catch(() => "");
    let said = "";
    try {
      said = clip(cleaned(z.parse(errorSchema, JSON.parse(text)).error.message), 400);
    } catch {
      // Proxies answer with pages of their own.
    }
    const hint = status === 404 && said === "" ? "; the address of a rarefy server ends in /v1" : "";
    return new NetworkError(`${address}: status ${status}${said === "" ? hint : `: ${said}`}`, { status });
  }

  async #text(response: Response, address: string, signal: AbortSignal | undefined): Promise<string> {
    const reader = response.body?.pipeThrough(new TextDecoderStream() as never).getReader();
    let text = "";
    try {
      for (;;) {
        const { done, value } = ((await reader?.read()) ?? { done: true }) as ReadableStreamReadResult<string>;
        if (done) return text;
        text += value;
        if (text.length > mostCharacters) throw tooLong(address);
      }
    } catch (error) {
      throw this.#reason(error, address, signal);
    } finally {
      await reader?.cancel().catch(() => {});
    }
  }

  /** An abort stays what it is; what a connection ends with becomes an error of ours. */
  #reason(error: unknown, address: string, signal: AbortSignal | undefined): unknown {
    if (signal?.aborted) return signal.reason;
    if (error instanceof FormatError || error instanceof NetworkError) return error;
    return noAnswer(address, error);
  }
}

const tooLong = (file: string) =>
  new FormatError({ file, problem: `the answer has more than ${mostCharacters} characters` });

function parse(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new FormatError({ file, problem: "the answer is not JSON" });
  }
}

/** Reads to the end, so that the connection stays alive. Never fails. */
async function drained(reader: ReadableStreamDefaultReader<string>): Promise<string | undefined> {
  let last: string | undefined;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return last;
      last = /"message":"([^"]{1,200})"/.exec(value)?.[1] ?? last;
    }
  } catch {
    return last;
  }
}
