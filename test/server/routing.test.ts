import { afterAll, beforeAll, expect, test } from "vitest";
import { directoryFiles } from "../../src/io/index.node.js";
import { type OpenedModel, openModel } from "../../src/pipeline/index.js";
import {
  type Cloud,
  calibrateRoute,
  collect,
  connectCloud,
  type GenerateOptions,
  generate,
  parseKv,
  parseRoute,
  type Route,
  routeRules,
  Sequence,
  usage,
} from "../../src/runtime/index.js";
import { withBudget } from "../../src/runtime/internal.js";
import { JoinedPasses } from "../../src/server/engine/joinedPasses.js";
import { loadTokenizer } from "../../src/text/index.js";
import { tinyDirectory, tinyServer } from "./tinyServer.js";

/** A small model here (the same in codes of 4 bits) that leaves some tokens, or a text, to a larger one on a server. */

const prompt = [40, 41, 42, 300, 17];
const server = tinyServer();
const requests: { path: string; body: { given?: number[]; prompt?: number[] } }[] = [];
let edge: OpenedModel;
let whole: OpenedModel;
let cloud: Cloud;
beforeAll(async () => {
  const files = directoryFiles(tinyDirectory);
  edge = await openModel(files, { weights: "q4", threads: 1 });
  whole = await openModel(files, { threads: 1 });
  const tokenizer = await loadTokenizer(files);
  cloud = await connectCloud("http://cloud.test/v1", {
    tokenizer,
    async fetch(address, init) {
      requests.push({ path: new URL(address).pathname, body: JSON.parse(init.body as string) });
      return server.app.fetch(new Request(address, init));
    },
  });
});
afterAll(async () => {
  for (const one of [edge, whole]) one[Symbol.dispose]();
  await server[Symbol.asyncDispose]();
});

const run = (options: GenerateOptions, model = edge.model) =>
  collect(generate(model, prompt, { maxTokens: 10, stopIds: [], ...options }));

/** What both models make of a text, and which of the two is asked, by the definition. */
async function byHand(route: Route, count: number): Promise<{ tokens: number[]; routed: number }> {
  const tokens = [...prompt];
  let routed = 0;
  const rowOf = async ({ model }: OpenedModel) => {
    using sequence = new Sequence(model, 64);
    const logits = await sequence.run(Uint32Array.from(tokens));
    const row = (await model.backend.read(logits)).subarray(0, model.config.vocabSize);
    model.backend.release(logits);
    return row;
  };
  for (let t = 0; t < count; t++) {
    const row = await rowOf(edge);
    const asks = route.certainty(row) < route.least!;
    if (asks) routed++;
    const chosen = asks ? await rowOf(whole) : row;
    tokens.push(chosen.indexOf(chosen.reduce((a, b) => Math.max(a, b))));
  }
  return { tokens: tokens.slice(prompt.length), routed };
}

test.each(["confidence:threshold=0.3", "entropy:threshold=4.5"])(
  "%s asks for the tokens that it names, and no other",
  async (text) => {
    requests.length = 0;
    const route = parseRoute(text);
    const { tokenIds, routing } = await run({ cloud, route });
    const wanted = await byHand(route, 10);
    expect(tokenIds).toEqual(wanted.tokens);
    expect(routing).toMatchObject({ route: text, tokens: 10, routed: wanted.routed });
    expect(wanted.routed).toBeGreaterThan(0);
    expect(wanted.routed).toBeLessThan(10);
    // The server gets each token once.
    const [first, ...more] = requests;
    expect(first.path).toBe("/v1/verify/sessions");
    expect(requests).toHaveLength(wanted.routed);
    const got = [...first.body.prompt!, ...more.flatMap(({ body }) => body.given!)];
    expect(got).toEqual([...prompt, ...tokenIds].slice(0, got.length));
    expect(routing!.caughtUp).toBe(got.length - first.body.prompt!.length);
    expect(routing!.asked).toBe(wanted.routed - 1);
  },
);

test("the ends of the scale: none of the tokens, all of them", async () => {
  const [local, far] = [await run({}), await run({}, whole.model)];
  expect(local.tokenIds).not.toEqual(far.tokenIds);
  requests.length = 0;
  const none = await run({ cloud, route: parseRoute("confidence:threshold=0") });
  expect(none.tokenIds).toEqual(local.tokenIds);
  expect(requests).toHaveLength(0);
  const all = await run({ cloud, route: parseRoute("entropy:threshold=0") });
  expect(all.tokenIds).toEqual(far.tokenIds);
  expect(all.routing).toMatchObject({ tokens: 10, routed: 10, asked: 9, caughtUp: 9 });
});

test("a cascade keeps the text of the small model where it is sure, and else gives the server's", async () => {
  const [local, far] = [await run({}), await run({}, whole.model)];
  requests.length = 0;
  const kept = await run({ cloud, route: parseRoute("cascade:threshold=0,tokens=4") });
  expect(kept.tokenIds).toEqual(local.tokenIds);
  expect(kept.routing).toMatchObject({ tokens: 10, routed: 0, asked: 0 });
  expect(requests).toHaveLength(0);
  using sequence = new Sequence(edge.model, 64);
  const left = await run({ cloud, route: parseRoute("cascade:threshold=1,tokens=4"), sequence });
  expect(left.tokenIds).toEqual(far.tokenIds);
  expect(left.routing).toMatchObject({ tokens: 10, routed: 10, asked: 1 });
  expect(left.speculation!.rounds).toBeGreaterThan(0);
  // A text that ends early leaves nothing in the sequence that was not given.
  const short = await run({ cloud, route: parseRoute("cascade:threshold=0,tokens=8"), sequence, maxTokens: 2 });
  expect(short.tokenIds).toEqual(local.tokenIds.slice(0, 2));
  expect(sequence.tokens).toEqual([...prompt, ...short.tokenIds].slice(0, sequence.length));
});

test("what several clients propose at the same time is verified in one pass, to the texts of each alone", async () => {
  const figure = async (name: string) => {
    const text = await (await server.app.request("/metrics")).text();
    return Number(new RegExp(`^${name}\\{model="tiny"\\} (\\S+)`, "m").exec(text)?.[1] ?? 0);
  };
  const alone = await run({}, whole.model);
  const before = { passes: await figure("rarefy_batch_size_count"), texts: await figure("rarefy_batch_size_sum") };
  const texts = await Promise.all(Array.from({ length: 3 }, () => run({ cloud, draftTokens: 2 })));
  for (const { tokenIds } of texts) expect(tokenIds).toEqual(alone.tokenIds);
  const passes = (await figure("rarefy_batch_size_count")) - before.passes;
  const sequences = (await figure("rarefy_batch_size_sum")) - before.texts;
  expect(sequences).toBeGreaterThan(passes);
});

test("in a joined pass one that fails ends no other, and who leaves before it is not run", async () => {
  const { model } = whole;
  const passes = new JoinedPasses(model, 64, () => {});
  const sequences = [8, 2, 8].map((capacity) => new Sequence(model, capacity));
  const tokens = Uint32Array.of(40, 41, 42);
  const [first, second, third] = await Promise.allSettled(sequences.map((sequence) => passes.run(sequence, tokens)));
  expect(second).toMatchObject({ status: "rejected", reason: { message: expect.stringContaining("a cache of 2") } });
  for (const one of [first, third]) {
    expect(one.status).toBe("fulfilled");
    if (one.status === "fulfilled") model.backend.release(one.value);
  }
  expect(sequences.map(({ length }) => length)).toEqual([3, 0, 3]);
  const leaving = new AbortController();
  const [stays, left] = [sequences[0], sequences[2]].map((sequence, i) =>
    passes.run(sequence, Uint32Array.of(7), i === 1 ? leaving.signal : undefined),
  );
  leaving.abort();
  await expect(left).rejects.toThrow("abort");
  model.backend.release(await stays);
  await expect(passes.run(sequences[2], tokens, leaving.signal)).rejects.toThrow("abort");
  expect(sequences.map(({ length }) => length)).toEqual([4, 0, 3]);
  for (const sequence of sequences) sequence[Symbol.dispose]();
});

test("a threshold is found with the cache that the text is to be run with", async () => {
  const tokens = Uint32Array.from({ length: 64 }, (_, i) => 5 + ((i * 37) % 900));
  const kv = parseKv("sinks:budget=8,sinks=2");
  const found = await calibrateRoute(edge.model, parseRoute("confidence:budget=0.5"), tokens, { window: 64, kv });
  using sequence = new Sequence(edge.model, 64, { kv });
  const certainties: number[] = [];
  for (const token of tokens) {
    const logits = await sequence.run(Uint32Array.of(token));
    const values = await edge.model.backend.read(logits);
    edge.model.backend.release(logits);
    certainties.push(found.certainty(values.subarray(0, edge.model.config.vocabSize)));
  }
  expect(certainties.filter((certainty) => certainty < found.least!)).toHaveLength(32);
  const whole = await calibrateRoute(edge.model, parseRoute("confidence:budget=0.5"), tokens, { window: 64 });
  expect(found.least).not.toBe(whole.least);
});

test("a budget becomes the threshold that routes so much of a text", async () => {
  const certainties = Array.from({ length: 10 }, (_, i) => (7 * i) % 10);
  const routedOf = (text: string) => {
    const { least } = withBudget(parseRoute(text), certainties);
    return certainties.filter((certainty) => certainty < least!).length;
  };
  expect(["0", "0.25", "0.3", "1"].map((budget) => routedOf(`confidence:budget=${budget}`))).toEqual([0, 2, 3, 10]);
  const tokens = Uint32Array.from({ length: 256 }, (_, i) => 5 + ((i * 37) % 900));
  for (const [text, share] of [
    ["entropy:budget=0.25", 0.25],
    ["cascade:budget=0.5,tokens=8", 0.5],
  ] as const) {
    const route = await calibrateRoute(edge.model, parseRoute(text), tokens, { window: 128 });
    using sequence = new Sequence(edge.model, 128);
    const spans: number[] = [];
    for (let w = 0; w < 2; w++) {
      sequence.rewind(0);
      const logits = await sequence.runRows(tokens.subarray(128 * w, 128 * (w + 1)));
      const values = await edge.model.backend.read(logits);
      edge.model.backend.release(logits);
      const row = (i: number) => values.subarray(i * logits.cols, i * logits.cols + edge.model.config.vocabSize);
      const span = route.span ?? 1;
      for (let i = 0; i < 128; i += span) {
        spans.push(
          Array.from({ length: span }, (_, s) => route.certainty(row(i + s))).reduce((a, b) => a + b, 0) / span,
        );
      }
    }
    expect(spans.filter((certainty) => certainty < route.least!).length / spans.length).toBe(share);
  }
});

test("what cannot be is said", async () => {
  expect(() => parseRoute("confidence")).toThrow("give either budget or threshold");
  expect(() => parseRoute("confidence:budget=0.2,threshold=0.5")).toThrow("give either budget or threshold");
  expect(() => parseRoute("margin:budget=0.2")).toThrow("there are confidence, entropy, cascade");
  const budget = parseRoute("confidence:budget=0.2");
  expect(usage("confidence", routeRules.confidence)).toBe("confidence:budget=N|threshold=N");
  expect(usage("cascade", routeRules.cascade)).toBe("cascade:budget=N|threshold=N,tokens=16");
  await expect(run({ cloud, route: budget })).rejects.toThrow("calibrateRoute");
  await expect(run({ route: parseRoute("confidence:threshold=0.2") })).rejects.toThrow("cloud");
  await expect(calibrateRoute(edge.model, budget, new Uint32Array(4))).rejects.toThrow("a text of 4 tokens");
});
