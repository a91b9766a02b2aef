import { FormatError, NetworkError, quote, UsageError } from "../core/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { parseContentRange } from "./contentRange.js";
import { isPlainFileName } from "./fileName.js";
import { endsEarly, targetOf } from "./range.js";
import { bodyOf, type RetryOptions, request, withRetries } from "./retry.js";

export interface HttpOptions extends RetryOptions {
  headers?: Readonly<Record<string, string>>;
}

/**
 * Opens an HTTP resource for reads by range; asks for one byte to learn the size. Works in browsers (other origins must
 * expose Content-Range) and in Node.
 * @returns undefined when there is no such resource (404, 410)
 * @throws FormatError when the server does not do ranges, NetworkError when it fails
 */
export async function openUrl(url: string, options: HttpOptions = {}): Promise<ByteSource | undefined> {
  return withRetries(async () => {
    const response = await getRange(url, 0, 1, options);
    await response.body?.cancel();
    if (response.status === 404 || response.status === 410) return undefined;
    const range = parseContentRange(response.headers.get("content-range"));
    // An empty file has no first byte.
    const empty = response.status === 416 && range?.total === 0;
    if (!empty) checkPartial(response, url);
    if (range === undefined) {
      throw new FormatError({
        file: url,
        problem: "the answer has no usable Content-Range header",
        hint: "A server of another origin must send Access-Control-Expose-Headers: Content-Range, ETag",
      });
    }
    return new HttpSource(url, range.total, response.headers.get("etag"), options);
  }, options);
}

function getRange(url: string, offset: number, length: number, options: HttpOptions): Promise<Response> {
  const headers = { ...options.headers, range: `bytes=${offset}-${offset + length - 1}` };
  return request(url, { headers, signal: options.signal });
}

function checkPartial(response: Response, url: string): void {
  const encoding = response.headers.get("content-encoding") ?? "identity";
  if (response.status === 206 && encoding === "identity") return;
  if (response.ok) {
    throw new FormatError({
      file: url,
      problem:
        response.status === 206 ? `the server compresses ranges (${encoding})` : "the server ignores Range requests",
      expected: "206 Partial Content, not compressed",
      hint: "Serve the model from a server that supports Range requests",
    });
  }
  throw new NetworkError(`${url}: status ${response.status} ${response.statusText}`, { status: response.status });
}

class HttpSource implements ByteSource {
  constructor(
    readonly name: string,
    readonly byteLength: number,
    readonly etag: string | null,
    readonly options: HttpOptions,
  ) {}

  async read(offset: number, length: number, into?: Uint8Array): Promise<Uint8Array> {
    const target = targetOf(this, offset, length, into);
    if (length > 0) await withRetries(() => this.#fill(target, offset), this.options);
    return target;
  }

  async close(): Promise<void> {}

  async #fill(target: Uint8Array, offset: number): Promise<void> {
    const { name: url, options } = this;
    const length = target.byteLength;
    const response = await getRange(url, offset, length, options);
    try {
      checkPartial(response, url);
      this.#checkSame(response, offset, length);
    } catch (error) {
      await response.body?.cancel();
      throw error;
    }
    let done = 0;
    for await (const piece of bodyOf(response, url, options.signal)) {
      if (done + piece.byteLength > length) {
        throw new FormatError({ file: url, problem: "the server sends more than the range asked for" });
      }
      target.set(piece, done);
      done += piece.byteLength;
    }
    if (done < length) throw endsEarly(url, length, done);
  }

  #checkSame(response: Response, offset: number, length: number): void {
    const range = parseContentRange(response.headers.get("content-range"));
    const etag = response.headers.get("etag");
    if (range?.total !== this.byteLength || (etag !== null && this.etag !== null && etag !== this.etag)) {
      throw new FormatError({
        file: this.name,
        problem: "the file changed on the server while it was read",
        hint: "Load the model again",
      });
    }
    if (range.first !== offset || range.last !== offset + length - 1) {
      throw new FormatError({
        file: this.name,
        problem: `the server sent bytes ${range.first} … ${range.last}`,
        expected: `${offset} … ${offset + length - 1}, as asked for`,
      });
    }
  }
}

/** The files of a model under a base URL. @param baseUrl absolute; a missing "/" at its end is added */
export function urlFiles(baseUrl: string, options: HttpOptions = {}): ModelFiles {
  const base = baseUrl.endsWith("/") ? baseUrl : `${baseUrl}/`;
  return {
    location: baseUrl,
    async open(name) {
      if (!isPlainFileName(name)) throw new UsageError(`${quote(name)} is not a plain file name`);
      return openUrl(new URL(name, base).href, options);
    },
    async close() {},
  };
}
