import { FormatError, quote, UsageError } from "../core/index.js";
import type { ByteSource, ModelFiles } from "./byteSource.js";
import { parseContentRange } from "./contentRange.js";
import { isPlainFileName } from "./fileName.js";
import { memorySource } from "./memory.js";
import { endsEarly, targetOf } from "./range.js";
import { readAhead } from "./readAhead.js";
import { bodyOf, type RetryOptions, request, statusError, withRetries } from "./retry.js";

/** How files are asked for over HTTP: headers, size of requests, repeated attempts. */
export interface HttpOptions extends RetryOptions {
  headers?: Readonly<Record<string, string>>;
  /** Bytes of one request; up to four are under way at once and six kept, for each open file. Default 4 MiB. */
  blockBytes?: number;
}

/** Asked for when a file is opened: most configs and the headers of most weights are shorter. */
const headBytes = 2 ** 18;

/** Files of a server that does no ranges are read whole when they are no longer. */
const maxWholeBytes = 2 ** 26;

/** What a server answers that has its one page for every address it does not know. */
const pageHint =
  "Many servers of single-page applications answer with index.html where there is no file: check the address, and for " +
  'files that may be missing let them answer 404 (Vite: appType: "mpa")';

/**
 * Opens an HTTP resource for reads by range: its first 256 KiB are fetched to learn the size, later reads in few large
 * requests, several at once where one follows on another. A server without ranges will do for files of up to 64 MiB. Works
 * in browsers (other origins must expose Content-Range) and in Node.
 * @returns undefined when there is no such resource: 404, 410, or a web page in its place
 * @throws FormatError when the server does no ranges and the file is long, NetworkError when it fails
 */
export async function openUrl(url: string, options: HttpOptions = {}): Promise<ByteSource | undefined> {
  const found = await find(url, options);
  return typeof found === "string" ? undefined : found;
}

async function find(url: string, options: HttpOptions): Promise<ByteSource | "missing" | "page"> {
  const blockBytes = options.blockBytes ?? 2 ** 22;
  if (!(Number.isSafeInteger(blockBytes) && blockBytes > 0)) throw new UsageError(`blockBytes is ${blockBytes}`);
  return withRetries(async () => {
    const response = await getRange(url, 0, Math.min(headBytes, blockBytes), options);
    try {
      if (response.status === 404 || response.status === 410) return "missing";
      if (isPage(response, url)) return "page";
      if (response.status === 200) return memorySource(url, await wholeOf(response, url, options.signal));
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
      const source = new HttpSource(url, range.total, response.headers.get("etag"), options);
      const head = new Uint8Array(empty ? 0 : Math.min(headBytes, blockBytes, range.total));
      if (!empty) await source.fill(head, 0, response);
      return readAhead(source, head, blockBytes);
    } finally {
      await response.body?.cancel().catch(() => {});
    }
  }, options);
}

function getRange(url: string, offset: number, length: number, options: HttpOptions): Promise<Response> {
  const headers = { ...options.headers, range: `bytes=${offset}-${offset + length - 1}` };
  return request(url, { headers, signal: options.signal });
}

const isPage = (response: Response, url: string) =>
  response.ok &&
  /^text\/html\b/i.test(response.headers.get("content-type") ?? "") &&
  !/\.html?$/i.test(new URL(url, "http://page").pathname);

/** The body of an answer that is the whole file. @throws FormatError when it is too long for that */
async function wholeOf(response: Response, url: string, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  const announced = Number(response.headers.get("content-length") ?? 0);
  if (announced > maxWholeBytes) throw ignoresRanges(url);
  for await (const piece of bodyOf(response, url, signal)) {
    length += piece.byteLength;
    if (length > maxWholeBytes) throw ignoresRanges(url);
    pieces.push(piece);
  }
  const whole = new Uint8Array(length);
  let done = 0;
  for (const piece of pieces) {
    whole.set(piece, done);
    done += piece.byteLength;
  }
  return whole;
}

const ignoresRanges = (url: string) =>
  new FormatError({
    file: url,
    problem: "the server ignores Range requests",
    expected: `206 Partial Content for files above ${maxWholeBytes / 2 ** 20} MiB`,
    hint: "Serve the model from a server that supports Range requests",
  });

function checkPartial(response: Response, url: string): void {
  const encoding = response.headers.get("content-encoding") ?? "identity";
  if (response.status === 206 && encoding === "identity") return;
  if (response.status === 206)
    throw new FormatError({
      file: url,
      problem: `the server compresses ranges (${encoding})`,
      expected: "206 Partial Content, not compressed",
      hint: "Serve the model from a server that sends ranges as they are",
    });
  if (response.ok) throw ignoresRanges(url);
  throw statusError(response, url);
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
    const fetchInto = async () => this.fill(target, offset, await getRange(this.name, offset, length, this.options));
    if (length > 0) await withRetries(fetchInto, this.options);
    return target;
  }

  async close(): Promise<void> {}

  /** Takes the bytes from `offset` on out of an answer. */
  async fill(target: Uint8Array, offset: number, response: Response): Promise<void> {
    const { name: url, options } = this;
    const length = target.byteLength;
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

/** Whatever else may be missing, a page in place of this file says that there is no model here. */
const requiredName = "config.json";

/**
 * The files of a model under a base URL. Nothing is kept beyond the open files; `storedFiles(urlFiles(url))` keeps
 * the model in the page's own storage.
 * @param baseUrl absolute; a missing "/" at its end is added
 */
export function urlFiles(baseUrl: string, options: HttpOptions = {}): ModelFiles {
  const base = baseUrl.endsWith("/") ? baseUrl : `${baseUrl}/`;
  return {
    location: baseUrl,
    async open(name) {
      if (!isPlainFileName(name)) throw new UsageError(`${quote(name)} is not a plain file name`);
      const url = new URL(name, base).href;
      const found = await find(url, options);
      if (found === "page" && name === requiredName)
        throw new FormatError({ file: url, problem: "the server answered with a web page", hint: pageHint });
      return typeof found === "string" ? undefined : found;
    },
    async close() {},
  };
}
