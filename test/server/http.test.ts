import { describe, expect, test } from "vitest";
import { createServer, listen } from "../../src/server/index.js";
import { answerOf, eventsOf, post, tinyServer } from "./tinyServer.js";

const completion = { prompt: [40, 41, 42], max_tokens: 4, temperature: 0 };
const endless = { prompt: [40, 41, 42], max_tokens: 900, temperature: 0, ignore_eos: true };

describe("requests that are refused say which field, and what was expected", () => {
  const server = tinyServer();
  test.each([
    ["/v1/completions", "{", 400, "invalid_json", null],
    ["/v1/completions", `${"[".repeat(100)}${"]".repeat(100)}`, 400, "invalid_json", null],
    ["/v1/completions", [], 400, "invalid_value", null],
    ["/v1/completions", {}, 400, "invalid_value", "prompt"],
    ["/v1/completions", { ...completion, temperature: 3 }, 400, "invalid_value", "temperature"],
    ["/v1/completions", { ...completion, max_tokens: -1 }, 400, "invalid_value", "max_tokens"],
    ["/v1/completions", { ...completion, max_tokens: 1.5 }, 400, "invalid_value", "max_tokens"],
    ["/v1/completions", { ...completion, logit_bias: { x: 1 } }, 400, "invalid_value", "logit_bias.x"],
    ["/v1/completions", { ...completion, logit_bias: { 99999: 1 } }, 400, "invalid_value", "logit_bias.99999"],
    ["/v1/completions", { ...completion, model: { length: [{ toString: 1 }] } }, 400, "invalid_value", null],
    ["/v1/completions", { ...completion, best_of: 3 }, 400, "invalid_value", "best_of"],
    ["/v1/completions", { ...completion, typical_p: 0.5 }, 400, "unsupported_parameter", "typical_p"],
    ["/v1/completions", { ...completion, prompt: [8192] }, 400, "invalid_value", "prompt"],
    ["/v1/completions", { ...completion, prompt: [] }, 400, "invalid_value", "prompt"],
    ["/v1/completions", { ...completion, prompt: Array(1025).fill(5) }, 400, "context_length_exceeded", "prompt"],
    ["/v1/completions", { ...completion, model: "other" }, 404, "model_not_found", "model"],
    ["/v1/completions", { ...completion, rarefy: { kv: "none" } }, 400, "invalid_value", "rarefy"],
    ["/v1/completions", { ...completion, rarefy: { sparsity: 0.5 } }, 400, "invalid_value", "rarefy"],
    ["/v1/completions", { ...completion, rarefy: { speed: 1 } }, 400, "unsupported_parameter", "rarefy.speed"],
    ["/v1/chat/completions", { messages: [] }, 400, "invalid_value", "messages"],
    ["/v1/chat/completions", { messages: [{ role: "poet", content: "" }] }, 400, "invalid_value", "messages[0].role"],
    [
      "/v1/chat/completions",
      { messages: [{ role: "user", content: "a" }], functions: [] },
      400,
      "unsupported_parameter",
      "functions",
    ],
    [
      "/v1/chat/completions",
      { messages: [{ role: "user", content: "a" }], top_logprobs: 1 },
      400,
      "invalid_value",
      "top_logprobs",
    ],
    [
      "/v1/responses",
      { input: "a", previous_response_id: "resp_1" },
      400,
      "unsupported_parameter",
      "previous_response_id",
    ],
    ["/v1/embeddings", { input: "" }, 400, "invalid_value", "input"],
    ["/v1/audio/speech", {}, 404, "not_found", null],
  ])("%s %j: %i %s", async (path, body, status, code, param) => {
    const response = await post(server, path, body);
    expect(response.status).toBe(status);
    const { error } = (await response.json()) as { error: Record<string, unknown> };
    expect(error).toMatchObject({ code, param, message: expect.any(String), type: expect.any(String) });
    if (typeof param === "string") expect(error.message).toContain(param);
  });

  test.each([
    ["GET", "/v1/completions", "POST"],
    ["PUT", "/v1/chat/completions", "POST"],
    ["DELETE", "/v1/models", "GET, HEAD"],
    ["POST", "/v1/models/tiny", "GET, HEAD"],
    ["POST", "/health", "GET, HEAD"],
  ])("%s %s: 405, and by what it is asked", async (method, path, allow) => {
    const headers = { "content-type": "application/json" };
    const response = await server.app.request(path, { method, headers });
    expect([response.status, response.headers.get("allow")]).toEqual([405, allow]);
    expect(await response.json()).toMatchObject({ error: { code: "method_not_allowed", param: null } });
  });

  test("another kind of body than JSON, and one that is too large", async () => {
    const text = await post(server, "/v1/completions", completion, { "content-type": "text/plain" });
    expect(text.status).toBe(415);
    const small = tinyServer({ maxBodyBytes: 100 });
    const large = await post(small, "/v1/completions", { ...completion, prompt: "x".repeat(200) });
    expect(large.status).toBe(413);
    expect(await large.json()).toMatchObject({ error: { code: "body_too_large" } });
  });
});

describe("who is let in", () => {
  test("with keys only those who show one, but for /health", async () => {
    const server = tinyServer({ apiKeys: ["first", "second"] });
    const status = async (path: string, key?: string) =>
      (await server.app.request(path, { headers: key === undefined ? {} : { authorization: `Bearer ${key}` } })).status;
    expect(await status("/v1/models")).toBe(401);
    expect(await status("/v1/models", "third")).toBe(401);
    expect(await status("/v1/models", "second")).toBe(200);
    expect(await status("/metrics")).toBe(401);
    expect(await status("/health")).toBe(200);
  });

  test("pages only of origins that are named, and none under another name of the machine", async () => {
    const ask = (server: ReturnType<typeof tinyServer>, headers: Record<string, string>) =>
      server.app.request("/v1/models", { headers });
    const closed = await ask(tinyServer(), { origin: "https://a.example" });
    expect(closed.headers.get("access-control-allow-origin")).toBeNull();
    const open = tinyServer({ corsOrigins: ["https://a.example"] });
    const [a, b] = await Promise.all(["a", "b"].map((name) => ask(open, { origin: `https://${name}.example` })));
    expect(a.headers.get("access-control-allow-origin")).toBe("https://a.example");
    expect(b.headers.get("access-control-allow-origin")).toBeNull();
    const local = tinyServer({ hosts: ["localhost"] });
    expect((await ask(local, { host: "evil.example:8080" })).status).toBe(403);
    expect((await ask(local, { host: "localhost:8080" })).status).toBe(200);
  });
});

describe("more than there is room for", () => {
  test("a full queue is 429 with Retry-After; those that were let in are answered", async () => {
    const server = tinyServer({ maxSequences: 2, maxQueue: 1 });
    const responses = await Promise.all(Array.from({ length: 6 }, () => post(server, "/v1/completions", completion)));
    const statuses = responses.map(({ status }) => status);
    expect(statuses.filter((status) => status === 200)).toHaveLength(3);
    const refused = responses.find(({ status }) => status === 429)!;
    expect(refused.headers.get("retry-after")).toBe("1");
    expect(await refused.json()).toMatchObject({ error: { type: "rate_limit_error", code: "queue_full" } });
    // All choices of a request, or none: what could never be let in is not told to try again.
    expect((await post(server, "/v1/completions", { ...completion, n: 3 })).status).toBe(200);
    expect((await post(server, "/v1/completions", { ...completion, n: 4 })).status).toBe(400);
    await server[Symbol.asyncDispose]();
  });

  test("texts wait for room for their keys and values; one that never fits is refused", async () => {
    // tiny-6m keeps 6 KB of a token.
    const server = tinyServer({ kvBytes: 200_000 });
    const answers = await Promise.all(
      [1, 2, 3, 4].map((seed) => post(server, "/v1/completions", { ...completion, max_tokens: 20, seed })),
    );
    for (const answer of answers) expect(answer.status).toBe(200);
    const never = await post(server, "/v1/completions", { ...completion, max_tokens: 200 });
    expect(never.status).toBe(400);
    expect(await never.json()).toMatchObject({ error: { message: expect.stringContaining("196608") } });
    await server[Symbol.asyncDispose]();
  });

  test("several models under a limit: the one not used for longest makes room", async () => {
    const [entry] = [
      (id: string) => ({
        id,
        files: () => import("../../src/io/index.node.js").then((io) => io.resolveModel("tiny-6m")),
        threads: 1,
      }),
    ];
    const server = createServer({ models: ["a", "b", "c"].map(entry), memoryLimit: 44e6, kvBytes: 2e6 });
    const loaded = async () => ((await (await server.app.request("/health")).json()) as { loaded: string[] }).loaded;
    const ask = async (model: string) => answerOf(await post(server, "/v1/completions", { ...completion, model }));
    const first = await ask("a");
    await ask("b");
    expect(await loaded()).toEqual(["a", "b"]);
    await ask("a");
    await ask("c");
    expect(await loaded()).toEqual(["a", "c"]);
    expect((await ask("b")).choices).toEqual(first.choices);
    await server[Symbol.asyncDispose]();
  });
});

describe("within a request", () => {
  const tiny = (id: string) => ({
    id,
    files: () => import("../../src/io/index.node.js").then((io) => io.resolveModel("tiny-6m")),
    threads: 1,
  });
  const taken = async (server: ReturnType<typeof tinyServer>) => {
    const text = await (await server.app.request("/metrics")).text();
    return [...text.matchAll(/^rarefy_model_bytes\{.*\} (\d+)$/gm)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
  };

  test("keys and values count to the limit of all models when they are taken: one that nobody uses is let go", async () => {
    const memoryLimit = 44e6;
    const server = createServer({ models: ["a", "b"].map(tiny), memoryLimit });
    for (const model of ["a", "b"]) await answerOf(await post(server, "/v1/completions", { ...completion, model }));
    const loaded = async () => ((await (await server.app.request("/health")).json()) as { loaded: string[] }).loaded;
    expect(await loaded()).toEqual(["a", "b"]);
    // 6 KB of a token.
    const long = { ...completion, model: "a", max_tokens: 1000 };
    const answer = post(server, "/v1/completions", { ...long, stream: true });
    const reader = (await answer).body!.getReader();
    await reader.read();
    expect(await loaded()).toEqual(["a"]);
    expect(await taken(server)).toBeLessThanOrEqual(memoryLimit);
    // While it runs, its room is no other model's, and no other model's is its.
    expect((await post(server, "/v1/completions", { ...completion, model: "b" })).status).toBe(503);
    await reader.cancel();
    await server[Symbol.asyncDispose]();
  });

  test("a model makes room before its weights are read, not beside those that are to go", async () => {
    const loaded = async () => ((await (await server.app.request("/health")).json()) as { loaded: string[] }).loaded;
    const seen: string[][] = [];
    const noting = {
      ...tiny("b"),
      files: async () => {
        const files = await tiny("b").files();
        const open: typeof files.open = async (name) => {
          if (name.endsWith(".safetensors")) seen.push(await loaded());
          return files.open(name);
        };
        return Object.assign(Object.create(files), { open });
      },
    };
    const server = createServer({ models: [tiny("a"), noting], memoryLimit: 30e6 });
    await server.load("a");
    await server.load("b");
    // Once to see how large it is, once to load it.
    expect(seen).toEqual([["a"], []]);
    await server[Symbol.asyncDispose]();
  });

  test("a text that other models in use leave no room for is told to try again", async () => {
    const server = createServer({ models: ["a", "b"].map(tiny), memoryLimit: 44e6 });
    for (const model of ["a", "b"]) await server.load(model);
    const first = await post(server, "/v1/completions", { ...endless, model: "b", max_tokens: 100, stream: true });
    const reader = first.body!.getReader();
    await reader.read();
    const answer = await post(server, "/v1/completions", { ...completion, model: "a", max_tokens: 1000 });
    expect([answer.status, await answer.json()]).toMatchObject([503, { error: { code: "models_busy" } }]);
    expect(answer.headers.get("retry-after")).toBe("5");
    await reader.cancel();
    await server[Symbol.asyncDispose]();
  });
});

describe("ends", () => {
  const activeOf = async (server: ReturnType<typeof tinyServer>) =>
    Number(
      /rarefy_active_sequences\{model="tiny"\} (\d+)/.exec(await (await server.app.request("/metrics")).text())?.[1],
    );

  test("a client that goes away ends its text, streamed or not", async () => {
    const server = tinyServer();
    await server.load("tiny");
    const gone = new AbortController();
    const whole = Promise.resolve(post(server, "/v1/completions", endless, {}, gone.signal)).catch(() => undefined);
    const streamed = await post(server, "/v1/completions", { ...endless, stream: true });
    const reader = streamed.body!.getReader();
    await reader.read();
    expect(await activeOf(server)).toBe(2);
    gone.abort();
    await reader.cancel();
    await whole;
    for (let turn = 0; turn < 1000 && (await activeOf(server)) > 0; turn++) await new Promise((r) => setTimeout(r, 5));
    expect(await activeOf(server)).toBe(0);
    const text = await (await server.app.request("/metrics")).text();
    expect(text).toContain('rarefy_generations_total{model="tiny",how="aborted"} 2');
    await server[Symbol.asyncDispose]();
  });

  test("a time limit ends a text: 408, or an event in a stream that has begun", async () => {
    const server = tinyServer({ requestTimeoutMs: 1 });
    await server.load("tiny");
    const response = await post(server, "/v1/completions", endless);
    expect(response.status).toBe(408);
    const { events, done } = await eventsOf(await post(server, "/v1/completions", { ...endless, stream: true }));
    expect(events.at(-1)).toMatchObject({ error: { code: "timeout" } });
    expect(done).toBe(false);
    await server[Symbol.asyncDispose]();
  });

  test("a server that closes ends what is under way and begins nothing", async () => {
    const server = tinyServer();
    const listening = await listen(server, { port: 0 });
    const ask = () =>
      fetch(`${listening.url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ ...completion, max_tokens: 30 }),
      });
    await server.load("tiny");
    const underWay = await fetch(`${listening.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ ...completion, max_tokens: 30, stream: true }),
    });
    const closed = listening.close();
    expect((await server.app.request("/health")).status).toBe(503);
    expect((await post(server, "/v1/completions", completion)).status).toBe(503);
    expect((await eventsOf(underWay)).done).toBe(true);
    expect(await closed).toBe(true);
    await expect(ask()).rejects.toThrow();
  });
});

test("metrics tell of queue, batches, speeds and bytes", async () => {
  const server = tinyServer();
  await Promise.all([1, 2, 3].map((seed) => post(server, "/v1/completions", { ...completion, seed })));
  const text = await (await server.app.request("/metrics")).text();
  for (const line of [
    'rarefy_requests_total{path="/v1/completions",status="200"} 3',
    'rarefy_generated_tokens_total{model="tiny"} 12',
    'rarefy_prompt_tokens_total{model="tiny"} 9',
    'rarefy_time_to_first_token_seconds_count{model="tiny"} 3',
    'rarefy_time_between_tokens_seconds_count{model="tiny"} 9',
    'rarefy_batch_size_bucket{model="tiny",le="4"} 4',
    'rarefy_queue_length{model="tiny"} 0',
  ]) {
    expect(text).toContain(line);
  }
  // Four passes for twelve tokens: the weights were read once for three texts.
  expect(text).toContain('rarefy_passes_total{model="tiny"} 4');
  for (const name of [
    "kv_bytes",
    "model_bytes",
    "tokens_per_second",
    "weight_bytes_per_token",
    "weight_bytes_read_total",
  ]) {
    expect(Number(new RegExp(`rarefy_${name}\\{model="tiny"\\} (\\S+)`).exec(text)?.[1]), name).toBeGreaterThan(0);
  }
  await server[Symbol.asyncDispose]();
});
