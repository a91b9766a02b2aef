import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ModelFiles } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import type { Model } from "../../src/model/index.js";
import { type OpenedModel, openModel } from "../../src/pipeline/index.js";
import {
  type CloudOptions,
  collect,
  connectCloud,
  type GenerateOptions,
  generate,
  Sampler,
  Sequence,
} from "../../src/runtime/index.js";
import { createServer } from "../../src/server/index.js";
import { loadTokenizer, type Tokenizer } from "../../src/text/index.js";
import { path } from "../golden/golden.js";
import { answerOf, eventsOf, post, tinyDirectory, tinyServer } from "./tinyServer.js";

const url = "http://cloud.test/v1";
const prompt = [40, 41, 42];
const server = tinyServer();
let opened: OpenedModel;
let edge: Model;
let tokenizer: Tokenizer;
beforeAll(async () => {
  const files = directoryFiles(tinyDirectory);
  tokenizer = await loadTokenizer(files);
  // Codes of 4 bits: another law than the server's, so that some of what it proposes is refused.
  opened = await openModel(files, { weights: "q4", threads: 1 });
  edge = opened.model;
});
afterAll(async () => {
  opened[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

const toServer: CloudOptions["fetch"] = async (address, init) => server.app.fetch(new Request(address, init));
const connect = (options: Partial<CloudOptions> = {}) => connectCloud(url, { tokenizer, fetch: toServer, ...options });
const run = async (options: GenerateOptions, cloud = connect()) =>
  collect(generate(edge, prompt, { maxTokens: 24, stopIds: [], ...options, cloud: await cloud }));
/** Of as many sessions as the server takes, those that others have: it learns of their end when it next hears of them. */
const sessionsOpen = async () => {
  const answers = await Promise.all(
    Array.from({ length: 16 }, () => post(server, "/v1/verify/sessions", { prompt, max_tokens: 2, temperature: 0 })),
  );
  const free = answers.filter(({ status }) => status === 200).length;
  for (const { body } of answers) await body?.cancel();
  return 16 - free;
};
/** A session that is never let go shows by the time that a test has at most. */
const allSessionsEnd = async () => {
  while ((await sessionsOpen()) > 0) await new Promise((resolve) => setTimeout(resolve, 20));
};

test.each([1, 4, undefined])("greedy texts are the server's own: %s tokens proposed at once", async (draftTokens) => {
  const own = await post(server, "/v1/completions", { prompt, max_tokens: 24, temperature: 0, ignore_eos: true });
  const { choices } = await answerOf(own);
  const { tokenIds, text, speculation, reason } = await run({ draftTokens, tokenizer });
  expect(text).toBe(choices[0].text);
  expect(tokenIds).toHaveLength(24);
  expect(reason).toBe("maxTokens");
  const { drafted, accepted, rounds, draft, networkMs } = speculation!;
  expect(draft).toBe(url);
  expect(accepted).toBeGreaterThan(0);
  expect(accepted).toBeLessThanOrEqual(drafted);
  expect(rounds + accepted + 1).toBeGreaterThanOrEqual(24);
  expect(networkMs).toBeGreaterThanOrEqual(0);
  await allSessionsEnd();
});

test("samples follow the server's law, whatever is proposed: chi-square of two tokens", async () => {
  const sampling = { temperature: 1.5, topK: 3 };
  // Models of random weights, small enough for many texts; any tokenizer will do.
  const filesOf = (name: string): ModelFiles => {
    const [own, text] = [directoryFiles(path(`arch/${name}`)), directoryFiles(tinyDirectory)];
    const open = (file: string) => (file.startsWith("tokenizer") ? text : own).open(file);
    return { location: name, open, close: async () => {} };
  };
  const law = async (target: Model, after: readonly number[]) => {
    using sequence = new Sequence(target, 8);
    const logits = await sequence.run(Uint32Array.from([...prompt, ...after]));
    const row = (await target.backend.read(logits)).subarray(0, target.config.vocabSize);
    target.backend.release(logits);
    return new Sampler(sampling).law(row, sequence.tokens);
  };
  using target = await openModel(filesOf("llama"), { threads: 1, weights: "f32" });
  const samples = 200;
  const classes = new Map<string, { expected: number; seen: number }>();
  for (const [a, pa] of (await law(target.model, [])).entries()) {
    if (pa === 0) continue;
    for (const [b, pb] of (await law(target.model, [a])).entries()) {
      if (pb > 0) classes.set(`${a} ${b}`, { expected: samples * pa * pb, seen: 0 });
    }
  }
  expect(classes.size).toBe(9);
  await using far = createServer({
    models: [{ id: "llama", files: () => filesOf("llama"), threads: 1, weights: "f32" }],
  });
  // Codes of few bits: another law, of which some is refused.
  using near = await openModel(filesOf("llama"), { threads: 1, weights: "q4" });
  const cloud = await connect({ fetch: async (address, init) => far.app.fetch(new Request(address, init)) });
  using sequence = new Sequence(near.model, 8);
  let [drafted, accepted] = [0, 0];
  for (let seed = 0; seed < samples; seed++) {
    const options = { ...sampling, maxTokens: 3, stopIds: [], draftTokens: 2, seed, sequence, cloud };
    const { tokenIds, speculation } = await collect(generate(near.model, prompt, options));
    drafted += speculation!.drafted;
    accepted += speculation!.accepted;
    classes.get(`${tokenIds[0]} ${tokenIds[1]}`)!.seen++;
  }
  expect(accepted).toBeGreaterThan(0);
  expect(accepted).toBeLessThan(drafted);
  let chiSquare = 0;
  for (const { expected, seen } of classes.values()) chiSquare += (seen - expected) ** 2 / expected;
  // 99.9 % of 8 degrees of freedom.
  expect(chiSquare).toBeLessThan(26.12);
});

test("the same seed gives the same text, and the sequence is left with what was given", async () => {
  const sampling = { temperature: 1, topP: 0.9, repetitionPenalty: 1.1, seed: 5, maxTokens: 12 };
  using sequence = new Sequence(edge, 40);
  const once = await run({ ...sampling, sequence });
  const text = [...prompt, ...once.tokenIds];
  expect([...sequence.tokens]).toEqual(text.slice(0, sequence.length));
  using again = new Sequence(edge, 40);
  expect((await run({ ...sampling, sequence: again })).tokenIds).toEqual(once.tokenIds);
});

test("a server says what it verifies; another vocabulary, another model and a wrong key are refused", async () => {
  expect(await connect()).toMatchObject({ url, model: "tiny", vocabSize: 8192, context: 1024 });
  const other = { vocabSize: tokenizer.vocabSize, tokenOf: (id: number) => tokenizer.tokenOf(id + 1) } as Tokenizer;
  await expect(connect({ tokenizer: other })).rejects.toThrow(/vocabulary of tiny .* same family/);
  await expect(connect({ model: "large" })).rejects.toThrow(/status 404: there is no model "large"/);
  const locked = tinyServer({ apiKeys: ["secret"] });
  const toLocked: CloudOptions["fetch"] = async (address, init) => locked.app.fetch(new Request(address, init));
  await expect(connect({ fetch: toLocked })).rejects.toThrow(/status 401/);
  expect(await connect({ fetch: toLocked, key: "secret" })).toMatchObject({ model: "tiny" });
  await locked[Symbol.asyncDispose]();
  await expect(connectCloud("cloud.test", { tokenizer })).rejects.toThrow(/address of a server/);
  await expect(run({ logprobs: true })).rejects.toThrow(/no logprobs/);
  await expect(run({ temperature: 3 })).rejects.toThrow(/status 400: temperature/);
});

describe("requests that are refused say which field", () => {
  const session = { prompt, max_tokens: 8, temperature: 0 };
  test.each([
    ["/v1/verify/model", { size: 1 }, 400, "size"],
    ["/v1/verify/sessions", { ...session, prompt: "text" }, 400, "prompt"],
    ["/v1/verify/sessions", { ...session, prompt: [8192] }, 400, "prompt"],
    ["/v1/verify/sessions", { ...session, prompt: Array(1025).fill(5) }, 400, "prompt"],
    ["/v1/verify/sessions", { ...session, max_tokens: 0 }, 400, "max_tokens"],
    ["/v1/verify/sessions", { ...session, presence_penalty: 1 }, 400, "presence_penalty"],
    ["/v1/verify/sessions", { ...session, rarefy: { kv: "h2o:budget=40" } }, 400, "rarefy.kv"],
    ["/v1/verify/batches", { session: "verify-none", given: [1], ids: [] }, 404, "session"],
    ["/v1/verify/batches", { session: "verify-none", given: [], ids: [] }, 400, "given"],
    ["/v1/verify/batches", { session: "verify-none", given: [1], ids: Array(17).fill(1) }, 400, "ids"],
  ])("%s %#", async (path, body, status, param) => {
    const response = await post(server, path, body);
    expect(response.status).toBe(status);
    expect(await response.json()).toMatchObject({ error: { param, message: expect.stringContaining(param) } });
  });

  test.each([
    [{ given: [8192], ids: [] }, "given[0]"],
    [{ given: [1], ids: [2, 9000] }, "ids[1]"],
    [{ given: Array(8).fill(1), ids: [] }, "given"],
    [{ given: [1], ids: [2], laws: [] }, "laws"],
    [{ given: [1], ids: [2], laws: [[[2, 0.5]]] }, "laws[0]"],
    [{ given: [1], ids: [2], laws: [[[3, 1]]] }, "laws[0]"],
    [
      {
        given: [1],
        ids: [2],
        laws: [
          [
            [2, 0.5],
            [2, 0.5],
          ],
        ],
      },
      "laws[0][1]",
    ],
    [{ given: [1], ids: [2], laws: [[[9000, 1]]] }, "laws[0][0]"],
    [{ given: [1], ids: [2], laws: [[[2, -1]]] }, "laws[0][0][1]"],
  ])("a batch %#: %s", async (batch, param) => {
    const stream = await post(server, "/v1/verify/sessions", session);
    const reader = stream.body!.getReader();
    const first = new TextDecoder().decode((await reader.read()).value);
    const { session: id } = JSON.parse(first.slice(first.indexOf("data: ") + 6));
    const response = await post(server, "/v1/verify/batches", { session: id, ...batch });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { param } });
    // What was refused has changed nothing.
    const { accepted, next } = await answerOf(
      await post(server, "/v1/verify/batches", { session: id, given: [1], ids: [] }),
    );
    expect([accepted, typeof next]).toEqual([0, "number"]);
    await reader.cancel();
  });
});

describe("a server that lies ends in an error that names the field", () => {
  const lying =
    (path: string, change: (body: Record<string, unknown>) => unknown): CloudOptions["fetch"] =>
    async (address, init) => {
      const response = await toServer!(address, init);
      if (!address.endsWith(path)) return response;
      return Response.json(change((await response.json()) as Record<string, unknown>));
    };
  test.each([
    ["/verify/model", "vocab_size", { vocab_size: -1 }],
    ["/verify/model", "vocabulary.digest", { vocabulary: { size: 8192, digest: "x" } }],
    ["/verify/model", "stop_ids.0", { stop_ids: ["end"] }],
    ["/verify/batches", "accepted", { accepted: 5 }],
    ["/verify/batches", "accepted", { accepted: 0.5 }],
    ["/verify/batches", "next", { next: 8192 }],
    ["/verify/batches", "elapsed_ms", { elapsed_ms: null }],
  ])("%s: %s", async (path, field, change) => {
    const cloud = connect({ fetch: lying(path, (body) => ({ ...body, ...change })) });
    await expect(run({ draftTokens: 4 }, cloud)).rejects.toMatchObject({ name: "FormatError", details: { field } });
  });

  test.each([
    ['event: session\ndata: {"session":"a","next":9000}\n\n', /next: 9000/],
    ['event: session\ndata: {"session":1,"next":1}\n\n', /session/],
    ["data: {\n\n", /not JSON/],
    ["", /ends before its first event/],
    ["x".repeat(2 ** 17), /more than 65536/],
  ])("/verify/sessions: %#", async (text, message) => {
    const fetch: CloudOptions["fetch"] = async (address, init) =>
      address.endsWith("/verify/sessions") ? new Response(text) : toServer!(address, init);
    await expect(run({}, connect({ fetch }))).rejects.toThrow(message);
  });
});

test("a client that goes away, and a server that closes, end the session", async () => {
  const cloud = await connect();
  const steps = generate(edge, prompt, { maxTokens: 500, stopIds: [], cloud, draftTokens: 4 });
  await steps.next();
  await steps.next();
  await steps.return();
  await allSessionsEnd();

  const abort = new AbortController();
  const aborted = generate(edge, prompt, { maxTokens: 500, stopIds: [], cloud, draftTokens: 4, signal: abort.signal });
  await aborted.next();
  abort.abort(new Error("enough"));
  await expect(collect(aborted)).rejects.toThrow("enough");
  await allSessionsEnd();

  const closing = tinyServer();
  const stream = await post(closing, "/v1/verify/sessions", { prompt, max_tokens: 8, temperature: 0 });
  const events = eventsOf(stream);
  expect(await closing.drain()).toBe(true);
  expect((await events).events.at(-1)).toMatchObject({ error: { code: "aborted" } });
  await closing[Symbol.asyncDispose]();
});
