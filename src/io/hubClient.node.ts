import { createHash } from "node:crypto";
import * as z from "zod/mini";
import { type JobOptions, UsageError } from "../core/index.js";
import { checkSchema } from "../core/internal.js";
import { parseContentRange } from "./contentRange.js";
import { type HubId, isCommit } from "./hubCache.node.js";
import type { HubSettings } from "./hubSettings.node.js";
import { parseJson } from "./json.js";
import { bodyOf, type RetryOptions, request, statusError, withRetries } from "./retry.js";

/** What the Hub says of a file before it is fetched. */
export interface RemoteFile {
  name: string;
  url: string;
  /** SHA-256 of the content for large files, the git hash for others. */
  etag: string;
  /** The hash; of a server whose ETags are no hashes, one that no other file has. */
  blobName: string;
  byteLength: number;
}

const maxListBytes = 64 * 2 ** 20;
const maxRedirects = 5;

const modelInfo = z.object({
  sha: z.string().check(z.refine(isCommit, "not a commit hash")),
  siblings: z.array(z.object({ rfilename: z.string() })),
});

/** The few calls of the Hub's HTTP interface that loading a model takes. */
export class HubClient {
  constructor(
    readonly settings: HubSettings,
    readonly id: HubId,
    readonly options: JobOptions & RetryOptions,
  ) {}

  /** The commit a revision stands for and the names of its files. */
  async list(): Promise<{ commit: string; names: string[] }> {
    const { repository, revision } = this.id;
    const url = `${this.settings.endpoint}/api/models/${repository}/revision/${encodeURIComponent(revision)}`;
    const bytes = await withRetries(async () => {
      const response = await request(url, this.#init(url));
      if (!response.ok) await this.#fail(response, url);
      return this.#collect(response, url);
    }, this.options);
    const info = checkSchema(modelInfo, parseJson(bytes, url), url);
    return { commit: info.sha, names: info.siblings.map((sibling) => sibling.rfilename) };
  }

  /** Asks for the hash and the size of a file; large files answer with a redirect whose headers have both. */
  async describe(commit: string, name: string): Promise<RemoteFile> {
    const first = `${this.settings.endpoint}/${this.id.repository}/resolve/${commit}/${name}`;
    return withRetries(async () => {
      let url = first;
      for (let redirects = 0; redirects <= maxRedirects; redirects++) {
        const response = await request(url, { ...this.#init(url), method: "HEAD", redirect: "manual" });
        const linked = response.headers.get("x-linked-etag");
        const location = response.headers.get("location");
        const redirected = response.status >= 300 && response.status < 400 && location !== null;
        if (redirected && linked === null) {
          url = new URL(location, url).href;
          continue;
        }
        if (!response.ok && !redirected) await this.#fail(response, url);
        const etag = (linked ?? response.headers.get("etag") ?? "").replace(/^W\//, "").replaceAll('"', "");
        const size = response.headers.get("x-linked-size") ?? response.headers.get("content-length");
        const byteLength = size === null ? await this.#sizeByGet(first) : Number(size);
        // The etag becomes a file name.
        if (!/^[0-9A-Za-z_-]{1,128}$/.test(etag) || !Number.isSafeInteger(byteLength) || byteLength < 0) {
          throw new UsageError(`${url}: the server gives no usable ETag and size; it is no Hugging Face Hub`);
        }
        const isHash = /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(etag);
        const blobName = isHash ? etag : createHash("sha256").update(`${commit}/${name}/${etag}`).digest("hex");
        return { name, url: first, etag, blobName, byteLength };
      }
      throw new UsageError(`${first}: more than ${maxRedirects} redirects`);
    }, this.options);
  }

  /** Proxies take Content-Length out of answers to HEAD; what GET answers has it. NaN where that has none either. */
  async #sizeByGet(url: string): Promise<number> {
    const init = this.#init(url);
    const response = await request(url, { ...init, headers: { ...init.headers, range: "bytes=0-0" } });
    await response.body?.cancel();
    if (response.status === 416) return 0;
    if (!response.ok) await this.#fail(response, url);
    if (response.status === 206) return parseContentRange(response.headers.get("content-range"))?.total ?? Number.NaN;
    return Number(response.headers.get("content-length") ?? Number.NaN);
  }

  /** Fetches a file from a byte on. `fetch` drops the token when a redirect leaves the origin. */
  async get(file: RemoteFile, fromByte: number): Promise<Response> {
    const init = this.#init(file.url);
    const headers = fromByte > 0 ? { ...init.headers, range: `bytes=${fromByte}-` } : init.headers;
    const response = await request(file.url, { ...init, headers });
    if (!response.ok && response.status !== 416) await this.#fail(response, file.url);
    return response;
  }

  #init(url: string): { headers: Record<string, string>; signal?: AbortSignal } {
    const { endpoint, token } = this.settings;
    const headers: Record<string, string> = { "accept-encoding": "identity", "user-agent": "rarefy" };
    if (token !== undefined && new URL(url).origin === new URL(endpoint).origin) {
      headers.authorization = `Bearer ${token}`;
    }
    return { headers, signal: this.options.signal };
  }

  async #collect(response: Response, url: string): Promise<Uint8Array> {
    const pieces: Uint8Array[] = [];
    let byteLength = 0;
    for await (const piece of bodyOf(response, url, this.options.signal)) {
      byteLength += piece.byteLength;
      if (byteLength > maxListBytes) throw new UsageError(`${url}: more than ${maxListBytes} bytes of file list`);
      pieces.push(piece);
    }
    return Buffer.concat(pieces);
  }

  async #fail(response: Response, url: string): Promise<never> {
    await response.body?.cancel();
    const { repository, revision } = this.id;
    const { status } = response;
    const why = this.settings.token === undefined ? "set HF_TOKEN to a token" : "use a token in HF_TOKEN";
    const code = response.headers.get("x-error-code");
    if (status === 404 && code === "RevisionNotFound") {
      throw new UsageError(`${repository} has no revision "${revision}"`);
    }
    if (status === 404) {
      throw new UsageError(`there is no ${url}; check the spelling of ${repository}, or ${why} if it is private`);
    }
    if (status === 401) {
      throw new UsageError(
        `the Hub refuses ${repository} (401): it is private, gated or does not exist; ${why} that may read it`,
      );
    }
    if (status === 403) {
      throw new UsageError(
        `the Hub refuses ${repository} (403): accept its terms at ${this.settings.endpoint}/${repository}, and ${why} of an account that did`,
      );
    }
    throw statusError(response, url);
  }
}
