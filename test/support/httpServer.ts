import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface TestServer extends AsyncDisposable {
  readonly origin: string;
  /** "GET /path range=bytes=0-1" of every request so far. */
  readonly requests: string[];
}

/** An HTTP server on 127.0.0.1 for one test. */
export async function serve(handle: (request: IncomingMessage, response: ServerResponse) => void): Promise<TestServer> {
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const { range } = request.headers;
    requests.push(`${request.method} ${request.url}${range === undefined ? "" : ` range=${range}`}`);
    handle(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    requests,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Answers a GET or HEAD with bytes, honouring Range. @param cutAfter closes the connection after so many body bytes */
export function sendBytes(
  request: IncomingMessage,
  response: ServerResponse,
  bytes: Uint8Array,
  options: { headers?: Record<string, string>; cutAfter?: number } = {},
): void {
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const first = match ? Number(match[1]) : 0;
  const last = match?.[2] ? Math.min(Number(match[2]), bytes.length - 1) : bytes.length - 1;
  const headers: Record<string, string> = { ...options.headers };
  if (match && first >= bytes.length) {
    response.writeHead(416, { ...headers, "content-range": `bytes */${bytes.length}` }).end();
    return;
  }
  if (match) headers["content-range"] = `bytes ${first}-${last}/${bytes.length}`;
  const body = bytes.subarray(first, last + 1);
  headers["content-length"] = String(body.length);
  response.writeHead(match ? 206 : 200, headers);
  if (request.method === "HEAD") {
    response.end();
  } else if (options.cutAfter !== undefined && options.cutAfter < body.length) {
    response.write(body.subarray(0, options.cutAfter), () => response.destroy());
  } else {
    response.end(body);
  }
}
