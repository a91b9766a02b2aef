import type { IncomingMessage, ServerResponse } from "node:http";
import { describe, expect, it } from "vitest";
import { sendBytes, serve } from "../../test/support/httpServer.js";
import { FormatError, NetworkError, UsageError } from "../core/index.js";
import { parseContentRange } from "./contentRange.js";
import { openUrl, urlFiles } from "./http.js";

const bytes = Uint8Array.from({ length: 1000 }, (_, i) => (i * 7) % 251);
const fast = { retryDelaysMs: [1, 1], blockBytes: 4 };

describe("HTTP byte source", () => {
  it("reads ranges, also into shared memory", async () => {
    await using server = await serve((request, response) => sendBytes(request, response, bytes));
    const source = (await openUrl(`${server.origin}/a`, fast))!;
    expect(source.byteLength).toBe(1000);
    expect(await source.read(10, 20)).toEqual(bytes.slice(10, 30));
    expect(await source.read(990, 10)).toEqual(bytes.slice(990));
    expect(await source.read(1000, 0)).toEqual(new Uint8Array());
    const shared = new Uint8Array(new SharedArrayBuffer(64), 8, 16);
    expect(await source.read(100, 16, shared)).toBe(shared);
    expect(Uint8Array.from(shared)).toEqual(bytes.slice(100, 116));
    expect(server.requests).toContain("GET /a range=bytes=12-15");
  });

  it("refuses ranges outside before asking", async () => {
    await using server = await serve((request, response) => sendBytes(request, response, bytes));
    const source = (await openUrl(`${server.origin}/a`, fast))!;
    const asked = server.requests.length;
    await expect(source.read(990, 11)).rejects.toThrow(FormatError);
    await expect(source.read(-1, 2)).rejects.toThrow(FormatError);
    await expect(source.read(0, 2 ** 60)).rejects.toThrow(FormatError);
    await expect(source.read(0, 4, new Uint8Array(5))).rejects.toThrow(UsageError);
    expect(server.requests.length).toBe(asked);
  });

  it("knows missing and empty files", async () => {
    await using server = await serve((request, response) => {
      if (request.url === "/empty") sendBytes(request, response, new Uint8Array());
      else response.writeHead(404).end("no");
    });
    expect(await openUrl(`${server.origin}/none`, fast)).toBeUndefined();
    const empty = (await openUrl(`${server.origin}/empty`, fast))!;
    expect(empty.byteLength).toBe(0);
    expect(await empty.read(0, 0)).toEqual(new Uint8Array());
  });

  it("says when the server compresses or hides the size", async () => {
    await using server = await serve((request, response) => {
      const headers = { "content-length": "1" };
      if (request.url === "/hidden") response.writeHead(206, headers).end("x");
      else response.writeHead(206, { "content-range": "bytes 0-0/9", "content-encoding": "br" }).end("x");
    });
    await expect(openUrl(`${server.origin}/hidden`, fast)).rejects.toThrow(/Access-Control-Expose-Headers/);
    await expect(openUrl(`${server.origin}/br`, fast)).rejects.toThrow(/compresses ranges/);
  });

  it("reads a short file whole where the server ignores ranges, and refuses a long one", async () => {
    await using server = await serve((request, response) => {
      if (request.url === "/short") response.writeHead(200).end(bytes);
      else response.writeHead(200, { "content-length": String(2 ** 26 + 1) }).write("x");
    });
    const source = (await openUrl(`${server.origin}/short`, fast))!;
    expect(source.byteLength).toBe(1000);
    expect(await source.read(500, 20)).toEqual(bytes.slice(500, 520));
    expect(server.requests).toHaveLength(1);
    await expect(openUrl(`${server.origin}/long`, fast)).rejects.toThrow(
      /ignores Range requests; expected .* above 64 MiB/,
    );
  });

  it.each([200, 206])(
    "takes a web page (status %i) in place of a file for a missing one, and says so of config.json",
    async (status) => {
      const html = "<!doctype html>";
      await using server = await serve((_, response) => {
        const headers = { "content-type": "text/html; charset=utf-8", "content-range": "bytes 0-3/15" };
        response.writeHead(status, headers).end(html.slice(0, status === 206 ? 4 : undefined));
      });
      const files = urlFiles(`${server.origin}/m`, fast);
      expect(await files.open("rarefy.json")).toBeUndefined();
      await expect(files.open("config.json")).rejects.toThrow(
        /config\.json: the server answered with a web page.*appType: "mpa"/,
      );
    },
  );

  it("asks again for a block that failed, when it is wanted again", async () => {
    let broken = true;
    await using server = await serve((request, response) => {
      if (broken && request.headers.range !== "bytes=0-3") response.writeHead(403).end();
      else sendBytes(request, response, bytes);
    });
    const source = (await openUrl(`${server.origin}/a`, fast))!;
    await expect(source.read(0, 100)).rejects.toThrow(/403/);
    broken = false;
    expect(await source.read(0, 100)).toEqual(bytes.slice(0, 100));
  });

  const lies: [string, (request: IncomingMessage, response: ServerResponse) => void, RegExp][] = [
    [
      "shifts the range",
      (_, r) => r.writeHead(206, { "content-range": "bytes 9-12/1000" }).end("abcd"),
      /sent bytes 9/,
    ],
    ["grows the range", (_, r) => r.writeHead(206, { "content-range": "bytes 5-7/1000" }).end("abcd"), /sent bytes 5/],
    ["changes the size", (_, r) => r.writeHead(206, { "content-range": "bytes 4-7/999" }).end("abcd"), /changed/],
    ["sends too much", (_, r) => r.writeHead(206, { "content-range": "bytes 4-7/1000" }).end("abcde"), /more than/],
    ["sends too little", (_, r) => r.writeHead(206, { "content-range": "bytes 4-7/1000" }).end("ab"), /2 bytes early/],
    ["stops doing ranges", (_, r) => r.writeHead(200).end("abcd"), /ignores Range/],
    [
      "changes the etag",
      (_, r) => r.writeHead(206, { "content-range": "bytes 4-7/1000", etag: '"b"' }).end("abcd"),
      /changed/,
    ],
  ];
  it.each(lies)("refuses a server that %s", async (_, lie, message) => {
    await using server = await serve((request, response) => {
      if (request.headers.range === "bytes=0-3") sendBytes(request, response, bytes, { headers: { etag: '"a"' } });
      else lie(request, response);
    });
    const source = (await openUrl(`${server.origin}/a`, fast))!;
    await expect(source.read(4, 4)).rejects.toThrow(FormatError);
    await expect(source.read(4, 4)).rejects.toThrow(message);
  });

  it("tries again after 503 and after a broken connection, not after 403", async () => {
    let failures = 0;
    await using server = await serve((request, response) => {
      if (request.url === "/403") response.writeHead(403).end();
      else if (request.headers.range !== "bytes=0-3" && failures++ < 1) {
        if (request.url === "/cut") sendBytes(request, response, bytes, { cutAfter: 50 });
        else response.writeHead(503).end();
      } else sendBytes(request, response, bytes);
    });
    for (const path of ["cut", "busy"]) {
      failures = 0;
      const source = (await openUrl(`${server.origin}/${path}`, fast))!;
      expect(await source.read(0, 1000)).toEqual(bytes);
    }
    await expect(openUrl(`${server.origin}/403`, fast)).rejects.toThrow(NetworkError);
    expect(server.requests.filter((request) => request.includes("/403")).length).toBe(1);
  });

  it("is a NetworkError without a server, and an abort is an abort", async () => {
    const server = await serve(() => {});
    const { origin } = server;
    const aborted = openUrl(`${origin}/a`, { signal: AbortSignal.timeout(50), retryDelaysMs: [] });
    await expect(aborted).rejects.toThrow(/timeout|aborted/i);
    await server[Symbol.asyncDispose]();
    await expect(openUrl(`${origin}/a`, fast)).rejects.toThrow(NetworkError);
    await expect(openUrl(`${origin}/a`, fast)).rejects.toThrow(/no answer \(.*ECONNREFUSED/);
  });

  it("opens the files of a model by plain name only", async () => {
    await using server = await serve((request, response) => {
      if (request.url === "/m/config.json") sendBytes(request, response, bytes);
      else response.writeHead(404).end();
    });
    const files = urlFiles(`${server.origin}/m`, fast);
    expect((await files.open("config.json"))?.byteLength).toBe(1000);
    expect(await files.open("none.json")).toBeUndefined();
    for (const name of ["../m/config.json", "/m/config.json", "http://x/", "..", ""]) {
      await expect(files.open(name)).rejects.toThrow(UsageError);
    }
  });
});

it.each([
  ["bytes 0-0/1000", { first: 0, last: 0, total: 1000 }],
  ["bytes */0", { first: undefined, last: undefined, total: 0 }],
  ["bytes 0-0/*", undefined],
  ["items 0-0/3", undefined],
  ["bytes 0-0/99999999999999999", undefined],
  [null, undefined],
])("parses Content-Range %s", (header, range) => {
  expect(parseContentRange(header)).toEqual(range);
});
