import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import { sendBytes, serve } from "../../test/support/httpServer.js";
import { seeds } from "../../test/support/seeds.js";
import { FormatError, NetworkError, type ProgressEvent, UsageError } from "../core/index.js";
import { openCheckpoint } from "./checkpoint.js";
import { resolveModel } from "./hub.node.js";
import { parseHubId } from "./hubCache.node.js";
import { readHubSettings } from "./hubSettings.node.js";

const { gguf, ggufFile } = seeds;
const root = await mkdtemp(join(tmpdir(), "rarefy-hub-"));
afterAll(() => rm(root, { recursive: true }));
let cache: string;
beforeEach(async () => {
  cache = await mkdtemp(join(root, "cache-"));
});

const utf8 = (text: string) => new TextEncoder().encode(text);
const commit = "0123456789abcdef0123456789abcdef01234567";
const header = '{"a":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]}}';
const weights = new Uint8Array(8 + header.length + 100_000).map((_, i) => i % 256);
new DataView(weights.buffer).setBigUint64(0, BigInt(header.length), true);
weights.set(utf8(header), 8);

const files: Record<string, Uint8Array> = {
  "config.json": utf8('{"model_type":"llama"}'),
  "tokenizer.json": utf8("{}"),
  "README.md": utf8("unwanted"),
  "pytorch_model.bin": utf8("unwanted"),
  "consolidated.safetensors": utf8("unwanted"),
  "original/config.json": utf8("unwanted"),
  "model.safetensors": weights,
};
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const gitHash = (bytes: Uint8Array) => createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
const weightsHash = sha256(weights);

interface HubOptions {
  files?: Record<string, Uint8Array>;
  /** Answers a GET of the large file's storage. */
  storage?: (request: IncomingMessage, response: ServerResponse, bytes: Uint8Array) => void;
  /** Sees every request first; true when it answered. */
  intercept?: (request: IncomingMessage, response: ServerResponse) => boolean;
}

/** Behaves as the Hub does: small files from their URL with a git ETag, large ones by a redirect to a storage. */
function serveHub(options: HubOptions = {}) {
  const served = options.files ?? files;
  return serve((request, response) => {
    if (options.intercept?.(request, response)) return;
    const path = request.url!;
    if (path.startsWith("/api/models/org/name/revision/")) {
      const siblings = Object.keys(served).map((rfilename) => ({ rfilename }));
      response.end(JSON.stringify({ sha: commit, siblings }));
      return;
    }
    const name = path.replace(`/org/name/resolve/${commit}/`, "").replace("/storage/", "");
    const bytes = served[name];
    if (bytes === undefined) response.writeHead(404).end();
    else if (path.startsWith("/storage/")) (options.storage ?? sendBytes)(request, response, bytes);
    else if (name.endsWith(".safetensors")) {
      response.writeHead(302, {
        location: `/storage/${name}`,
        "x-linked-etag": `"${sha256(bytes)}"`,
        "x-linked-size": String(bytes.length),
      });
      response.end();
    } else sendBytes(request, response, bytes, { headers: { etag: `W/"${gitHash(bytes)}"` } });
  });
}

const envFor = (origin: string, more: Record<string, string> = {}) => ({
  HF_ENDPOINT: `${origin}/`,
  HF_HUB_CACHE: cache,
  HF_HOME: join(cache, "home"),
  ...more,
});
const fast = { retryDelaysMs: [1, 1] };
const repository = () => join(cache, "models--org--name");
const resolveFrom = (origin: string, more: Record<string, string> = {}, id = "org/name") =>
  resolveModel(id, { ...fast, env: envFor(origin, more) });

describe("Hub models", () => {
  it("downloads what is needed into the shared cache layout", async () => {
    await using hub = await serveHub();
    const model = await resolveFrom(hub.origin);
    expect(model.directory).toBe(join(repository(), "snapshots", commit));
    expect(model.location).toBe("org/name@main");
    expect((await readdir(model.directory)).toSorted()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(await readlink(join(model.directory, "model.safetensors"))).toBe(join("..", "..", "blobs", weightsHash));
    expect((await readdir(join(repository(), "blobs"))).toSorted()).toEqual(
      [weightsHash, gitHash(files["config.json"]), gitHash(files["tokenizer.json"])].toSorted(),
    );
    expect(await readFile(join(repository(), "refs", "main"), "utf8")).toBe(commit);
    const checkpoint = await openCheckpoint(model);
    expect(await checkpoint.read("a", 5, 3)).toEqual(weights.slice(8 + header.length + 5, 8 + header.length + 8));
    await checkpoint.close();
  });

  it("takes the size from GET where a proxy keeps it from HEAD", async () => {
    const intercept = (request: IncomingMessage, response: ServerResponse) => {
      if (request.method !== "HEAD") return false;
      response.writeHead(200, { etag: `"${sha256(files[request.url!.split("/").at(-1)!])}"` }).end();
      return true;
    };
    await using hub = await serveHub({ intercept });
    const model = await resolveFrom(hub.origin);
    expect(await readFile(join(model.directory, "model.safetensors"))).toEqual(Buffer.from(weights));
  });

  it("waits as long as a server that limits requests asks, and says what it is", async () => {
    const times: number[] = [];
    const intercept = (_request: IncomingMessage, response: ServerResponse) => {
      times.push(performance.now());
      response.writeHead(429, { "retry-after": "1" }).end();
      return true;
    };
    await using hub = await serveHub({ intercept });
    const failed = resolveModel("org/name", { retryDelaysMs: [1], env: envFor(hub.origin) });
    await expect(failed).rejects.toThrow(/limits requests: wait .*HF_TOKEN/);
    await expect(failed).rejects.not.toThrow(/check the connection/);
    expect(times).toHaveLength(2);
    expect(times[1] - times[0]).toBeGreaterThanOrEqual(990);
  });

  it("does not wait for longer than a user would", async () => {
    const intercept = (_request: IncomingMessage, response: ServerResponse) => {
      response.writeHead(429, { "retry-after": "3600" }).end();
      return true;
    };
    await using hub = await serveHub({ intercept });
    const failed = resolveModel("org/name", { retryDelaysMs: [1], env: envFor(hub.origin) });
    await expect(failed).rejects.toThrow(/asks to wait 3600 s/);
    expect(hub.requests).toHaveLength(1);
  });

  it("gives up on a server that announces more bytes than it has", async () => {
    const intercept = (request: IncomingMessage, response: ServerResponse) => {
      if (!request.url!.endsWith("model.safetensors") || request.url!.startsWith("/storage/")) return false;
      const headers = { location: "/storage/model.safetensors", "x-linked-etag": '"abc"', "x-linked-size": "200000" };
      response.writeHead(302, headers).end();
      return true;
    };
    await using hub = await serveHub({ intercept, storage: (_request, response, bytes) => void response.end(bytes) });
    await expect(resolveFrom(hub.origin)).rejects.toThrow(/of 200000 bytes/);
    expect(hub.requests.filter((line) => line.startsWith("GET /storage/")).length).toBeLessThanOrEqual(4);
  });

  it("refuses a file that the disk has no room for", async () => {
    const intercept = (request: IncomingMessage, response: ServerResponse) => {
      if (!request.url!.endsWith("model.safetensors")) return false;
      response
        .writeHead(302, { location: "/storage/x", "x-linked-etag": '"abc"', "x-linked-size": String(2 ** 52) })
        .end();
      return true;
    };
    await using hub = await serveHub({ intercept });
    await expect(resolveFrom(hub.origin)).rejects.toThrow(/has 4503599627370496 bytes, and .* has room for \d+/);
  });

  it("keeps files apart whose ETags are no hashes and alike", async () => {
    const two = {
      "config.json": files["config.json"],
      "tokenizer.json": utf8('{"model_type":"other1"}'),
      "model.safetensors": weights,
    };
    const intercept = (request: IncomingMessage, response: ServerResponse) => {
      const bytes = two[request.url!.split("/").at(-1) as keyof typeof two];
      if (!request.url!.includes("/resolve/") || request.url!.endsWith(".safetensors")) return false;
      sendBytes(request, response, bytes, { headers: { etag: '"same"' } });
      return true;
    };
    await using hub = await serveHub({ files: two, intercept });
    const model = await resolveFrom(hub.origin);
    for (const name of ["config.json", "tokenizer.json"] as const) {
      expect(await readFile(join(model.directory, name))).toEqual(Buffer.from(two[name]));
    }
  });

  describe("repositories of GGUF files", () => {
    const part = (n: number) => `big/m-F16-0000${n}-of-00002.gguf`;
    const ggufFiles = {
      "README.md": utf8("x"),
      "m-Q8_0.gguf": utf8(""),
      "m-Q4_K_M.gguf": utf8(""),
      "mmproj-F16.gguf": utf8(""),
      [part(1)]: utf8(""),
      [part(2)]: utf8(""),
    };
    const split = (no: number) => ({ "split.no": [2, no], "split.count": [2, 2] });
    const half = (no: number) =>
      ggufFile({
        ...gguf,
        metadata: { ...gguf.metadata, ...split(no) },
        tensors: gguf.tensors.filter((_: unknown, i: number) => i % 2 === no),
      });
    ggufFiles["m-Q8_0.gguf"] = ggufFile(gguf);
    ggufFiles[part(1)] = half(0);
    ggufFiles[part(2)] = half(1);

    it("name their files where several could be meant", async () => {
      await using hub = await serveHub({ files: ggufFiles });
      await expect(resolveFrom(hub.origin)).rejects.toThrow(
        /holds 3 GGUF files: m-Q8_0.gguf, m-Q4_K_M.gguf, big\/m-F16-00001-of-00002.gguf; name one, as in org\/name\/m-Q8_0.gguf/,
      );
      await expect(resolveFrom(hub.origin, {}, "org/name:Q5_0")).rejects.toThrow(
        /has no GGUF file Q5_0; it holds: m-Q8_0/,
      );
    });

    it.each(["org/name/m-Q8_0.gguf", "org/name:q8_0", "org/name:Q8_0@main", `org/name/${part(2)}`, "org/name:F16"])(
      "%s",
      async (id) => {
        await using hub = await serveHub({ files: ggufFiles });
        const checkpoint = await openCheckpoint(await resolveFrom(hub.origin, {}, id));
        expect(checkpoint.tensors.size).toBe(gguf.tensors.length);
        await checkpoint.close();
        const offline = await resolveFrom(hub.origin, { HF_HUB_OFFLINE: "1" }, id);
        expect(offline.location).toMatch(/^org\/name@main\/.*\.gguf$/);
      },
    );
  });

  it("asks only for the commit when everything is there, and for nothing when the commit is given", async () => {
    await using hub = await serveHub();
    await resolveFrom(hub.origin);
    hub.requests.length = 0;
    await resolveFrom(hub.origin);
    expect(hub.requests).toEqual(["GET /api/models/org/name/revision/main"]);
    hub.requests.length = 0;
    const model = await resolveFrom(hub.origin, {}, `org/name@${commit}`);
    expect(hub.requests).toEqual([]);
    expect(model.location).toBe("org/name@01234567");
  });

  it("fetches the shards the index names", async () => {
    const shard = "model-00001-of-00001.safetensors";
    const sharded = {
      "config.json": files["config.json"],
      "model.safetensors.index.json": utf8(JSON.stringify({ weight_map: { a: shard } })),
      [shard]: weights,
      "model-unused.safetensors": weights,
    };
    await using hub = await serveHub({ files: sharded });
    const model = await resolveFrom(hub.origin, {}, "org/name@refs/pr/1");
    expect((await readdir(model.directory)).toSorted()).toEqual(["config.json", shard, "model.safetensors.index.json"]);
    expect(hub.requests[0]).toBe("GET /api/models/org/name/revision/refs%2Fpr%2F1");
    expect(await readFile(join(repository(), "refs", "refs", "pr", "1"), "utf8")).toBe(commit);
    const offline = () => resolveFrom(hub.origin, { HF_HUB_OFFLINE: "1" }, "org/name@refs/pr/1");
    await offline();
    await rm(join(model.directory, shard));
    await expect(offline()).rejects.toThrow(/not complete in the cache/);
  });

  it("goes on after broken connections within one call", async () => {
    await using hub = await serveHub({
      storage: (request, response, bytes) => sendBytes(request, response, bytes, { cutAfter: 40_000 }),
    });
    const model = await resolveFrom(hub.origin);
    expect((await readFile(join(model.directory, "model.safetensors"))).equals(weights)).toBe(true);
    const ranges = hub.requests.filter((request) => request.startsWith("GET /storage/") && request.includes("range"));
    expect(ranges.length).toBeGreaterThanOrEqual(2);
  });

  it("goes on in a later call where an abort stopped it", async () => {
    const controller = new AbortController();
    await using slow = await serveHub({
      storage(_, response, bytes) {
        response.writeHead(200, { "content-length": String(bytes.length) });
        response.write(bytes.subarray(0, 30_000));
      },
    });
    const aborted = resolveModel("org/name", {
      ...fast,
      env: envFor(slow.origin),
      signal: controller.signal,
      onProgress: ({ done, total }) => {
        if (total === weights.length && done > 0) controller.abort();
      },
    });
    await expect(aborted).rejects.toThrow(/abort/);
    const partial = join(repository(), "blobs", `${weightsHash}.incomplete`);
    const { size } = await stat(partial);
    expect(size).toBeGreaterThan(0);
    expect(size).toBeLessThan(weights.length);

    await using hub = await serveHub();
    const events: ProgressEvent[] = [];
    await resolveModel("org/name", { ...fast, env: envFor(hub.origin), onProgress: (event) => events.push(event) });
    expect(hub.requests.at(-1)).toBe(`GET /storage/model.safetensors range=bytes=${size}-`);
    expect(events.at(-1)).toMatchObject({ unit: "bytes", done: weights.length, total: weights.length });
    expect(await readdir(join(repository(), "blobs"))).not.toContain(`${weightsHash}.incomplete`);
  });

  it("begins again where the server cannot go on", async () => {
    await mkdir(join(repository(), "blobs"), { recursive: true });
    const partial = join(repository(), "blobs", `${weightsHash}.incomplete`);
    await writeFile(partial, weights.subarray(0, 500));
    await using hub = await serveHub({ storage: (_, response, bytes) => response.end(bytes) });
    await resolveFrom(hub.origin);
    expect(hub.requests.at(-1)).toBe("GET /storage/model.safetensors range=bytes=500-");
    expect((await readFile(join(repository(), "blobs", weightsHash))).equals(weights)).toBe(true);
  });

  it.each([
    [
      "changed bytes",
      (bytes: Uint8Array) => bytes.map((byte, i) => (i === 9000 ? byte ^ 1 : byte)),
      /has hash [0-9a-f]{64}; expected/,
    ],
    ["too many bytes", (bytes: Uint8Array) => Uint8Array.of(...bytes, 0), /more than/],
  ])("refuses %s and keeps nothing of them", async (_, damage, message) => {
    await using hub = await serveHub({ storage: (_request, response, bytes) => response.end(damage(bytes)) });
    const resolving = resolveFrom(hub.origin);
    await expect(resolving).rejects.toThrow(FormatError);
    await expect(resolving).rejects.toThrow(message);
    const blobs = await readdir(join(repository(), "blobs"));
    expect(blobs).not.toContain(weightsHash);
    const left = blobs.includes(`${weightsHash}.incomplete`)
      ? await stat(join(repository(), "blobs", `${weightsHash}.incomplete`))
      : { size: 0 };
    expect(left.size).toBe(0);
    expect(await readdir(join(repository(), "snapshots", commit))).not.toContain("model.safetensors");
  });

  it("refuses a damaged partial file and succeeds the next time", async () => {
    await mkdir(join(repository(), "blobs"), { recursive: true });
    await writeFile(join(repository(), "blobs", `${weightsHash}.incomplete`), new Uint8Array(500));
    await using hub = await serveHub();
    await expect(resolveFrom(hub.origin)).rejects.toThrow(/has hash/);
    await resolveFrom(hub.origin);
  });

  it("sends the token to the Hub and not to another origin", async () => {
    const seen: [string, string | undefined][] = [];
    await using storage = await serve((request, response) => {
      seen.push(["storage", request.headers.authorization]);
      const tokenizer = files["tokenizer.json"];
      if (request.url === "/tokenizer")
        sendBytes(request, response, tokenizer, { headers: { etag: gitHash(tokenizer) } });
      else sendBytes(request, response, weights);
    });
    await using hub = await serveHub({
      intercept(request, response) {
        seen.push(["hub", request.headers.authorization]);
        const path = request.url!;
        const moved = path.endsWith("tokenizer.json")
          ? "tokenizer"
          : request.method === "GET" && path.endsWith("model.safetensors") && "weights";
        if (!moved) return false;
        response.writeHead(302, { location: `${storage.origin}/${moved}` }).end();
        return true;
      },
    });
    await mkdir(join(cache, "home"), { recursive: true });
    await writeFile(join(cache, "home", "token"), "from-file\n");
    await resolveFrom(hub.origin);
    expect(new Set(seen.filter(([where]) => where === "hub").map(([, token]) => token))).toEqual(
      new Set(["Bearer from-file"]),
    );
    expect(seen.filter(([where]) => where === "storage")).toEqual(Array(3).fill(["storage", undefined]));
  });

  it.each([
    [401, {}, /private, gated or does not exist; set HF_TOKEN/],
    [403, {}, /accept its terms at http.*\/org\/name, and set HF_TOKEN/],
    [404, {}, /check the spelling of org\/name, or set HF_TOKEN/],
    [404, { "x-error-code": "RevisionNotFound" }, /org\/name has no revision "main"/],
  ])("explains status %d %j", async (status, headers, message) => {
    await using hub = await serve((_, response) => response.writeHead(status, headers).end());
    await expect(resolveFrom(hub.origin)).rejects.toThrow(UsageError);
    await expect(resolveFrom(hub.origin)).rejects.toThrow(message);
  });

  it("explains a model without safetensors", async () => {
    await using hub = await serveHub({ files: { "config.json": utf8("{}"), "pytorch_model.bin": utf8("x") } });
    await expect(resolveFrom(hub.origin)).rejects.toThrow(/only safetensors models/);
  });

  it("works offline from the cache, and says so when that is empty", async () => {
    await expect(resolveFrom("http://127.0.0.1:1", { HF_HUB_OFFLINE: "1" })).rejects.toThrow(/HF_HUB_OFFLINE is set/);
    await using hub = await serveHub();
    await resolveFrom(hub.origin);
    hub.requests.length = 0;
    const model = await resolveFrom(hub.origin, { HF_HUB_OFFLINE: "1" });
    expect(hub.requests).toEqual([]);
    expect((await model.open("config.json"))?.byteLength).toBe(22);
    await rm(join(model.directory, "model.safetensors"));
    await expect(resolveFrom(hub.origin, { HF_HUB_OFFLINE: "true" })).rejects.toThrow(UsageError);
  });

  it("falls back to the cache, visibly, when the Hub cannot be reached", async () => {
    const nowhere = "http://127.0.0.1:1";
    await expect(resolveFrom(nowhere)).rejects.toThrow(NetworkError);
    await expect(resolveFrom(nowhere)).rejects.toThrow(/no answer .*HF_ENDPOINT/);
    {
      await using hub = await serveHub();
      await resolveFrom(hub.origin);
    }
    const stages: string[] = [];
    const model = await resolveModel("org/name", {
      ...fast,
      env: envFor(nowhere),
      onProgress: ({ stage }) => stages.push(stage),
    });
    expect(stages).toEqual(["the Hub cannot be reached, using the cached org/name"]);
    expect(await model.open("model.safetensors")).toBeDefined();
  });

  it("tries a busy server again", async () => {
    let failures = 2;
    await using hub = await serveHub({
      intercept(_, response) {
        if (failures-- <= 0) return false;
        response.writeHead(503).end();
        return true;
      },
    });
    await resolveFrom(hub.origin);
  });

  it.each([
    ["a commit that is none", { sha: "../../evil", siblings: [] }],
    ["no files", { sha: commit }],
  ])("refuses %s from the server", async (_, info) => {
    await using hub = await serve((__, response) => response.end(JSON.stringify(info)));
    await expect(resolveFrom(hub.origin)).rejects.toThrow(FormatError);
  });

  it("refuses an ETag that would leave the cache", async () => {
    await using hub = await serveHub({
      intercept(request, response) {
        if (request.method !== "HEAD") return false;
        response.writeHead(200, { etag: '"../../../evil"', "content-length": "4" }).end();
        return true;
      },
    });
    await expect(resolveFrom(hub.origin)).rejects.toThrow(/no usable ETag/);
    expect((await readdir(cache)).filter((name) => name !== ".locks")).toEqual([]);
  });
});

describe("model arguments", () => {
  it("takes a directory as it is", async () => {
    expect((await resolveModel(root, { env: {} })).directory).toBe(root);
  });

  it("explains files and names that are neither directory nor Hub id", async () => {
    await writeFile(join(cache, "model.safetensors"), "x");
    await expect(resolveModel(join(cache, "model.safetensors"), { env: {} })).rejects.toThrow(
      /is a file and no GGUF file; give a GGUF file, or the directory/,
    );
    for (const argument of [
      "./none",
      "/none",
      "none",
      "a/b/c",
      "../a/b",
      "org/..",
      "org/na--me",
      "org/name@../x",
      "",
    ]) {
      await expect(resolveModel(argument, { env: {} })).rejects.toThrow(/no directory .*Hub id/);
    }
  });

  it.each([
    ["org/name", { repository: "org/name", revision: "main" }],
    ["Qwen/Qwen2.5-0.5B_x@v1.0", { repository: "Qwen/Qwen2.5-0.5B_x", revision: "v1.0" }],
    ["org/name@refs/pr/1", { repository: "org/name", revision: "refs/pr/1" }],
    ["org/name@", undefined],
    ["org/name@a//b", undefined],
    ["org/.name", undefined],
    ["org/na me", undefined],
  ])("parses %s", (text, id) => {
    expect(parseHubId(text)).toEqual(id);
  });

  it("finds the cache by the shared environment variables", async () => {
    const cacheFor = async (env: Record<string, string>) => (await readHubSettings(env)).cache;
    expect(await cacheFor({ HF_HUB_CACHE: "/a", HUGGINGFACE_HUB_CACHE: "/b", HF_HOME: "/c" })).toBe("/a");
    expect(await cacheFor({ HUGGINGFACE_HUB_CACHE: "/b", HF_HOME: "/c" })).toBe("/b");
    expect(await cacheFor({ HF_HOME: "/c", XDG_CACHE_HOME: "/d" })).toBe("/c/hub");
    expect(await cacheFor({ XDG_CACHE_HOME: "/d" })).toBe("/d/huggingface/hub");
    expect(await readHubSettings({ HF_HOME: "/none", HF_TOKEN: "t" })).toMatchObject({
      endpoint: "https://huggingface.co",
      token: "t",
      offline: false,
    });
  });
});
