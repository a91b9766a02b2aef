import { expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import {
  generate,
  KvPages,
  layersDraft,
  parseAttention,
  parseExits,
  parseKv,
  runTogether,
  Sequence,
  type SequenceOptions,
} from "../../src/runtime/index.js";
import { relativeDifference } from "../compress/support.js";
import { load, path } from "../golden/golden.js";

/** As `slotsOfBlock`. */
const pageTokens = 32;
const text = (length: number, seed: number) => Uint32Array.from({ length }, (_, i) => (i * 37 + seed * 11 + 5) % 90);

/** Logits after the last token, which runs by itself. */
async function logitsAfter(
  backend: Backend,
  model: Model,
  sequence: Sequence,
  tokens: Uint32Array,
): Promise<Float32Array> {
  if (tokens.length > 1) backend.release(await sequence.run(tokens.subarray(0, -1), { chunk: 24 }));
  const logits = await sequence.run(tokens.subarray(-1));
  const row = (await backend.read(logits)).slice(0, model.config.vocabSize);
  backend.release(logits);
  return row;
}

const roomFor = (model: Model, pages: number) => {
  using one = new KvPages(model, { maxBytes: 2 ** 30, firstBytes: 0 });
  return { maxBytes: pages * one.pageBytes };
};

/** Families that differ in what attention sees and keeps: windows, latents, sinks. */
test.each(["llama", "gemma2", "gpt_oss", "deepseek_v3"])(
  "%s: a text whose beginning lies in pages of another one goes on as in a cache of its own",
  async (family) => {
    for (const kind of family === "llama" ? (["reference", "wasm"] as const) : (["wasm"] as const)) {
      using backend = await openBackend(kind, kind === "wasm" ? { threads: 1 } : {});
      using model = await load(path(`arch/${family}`), backend, "f32");
      const [a, b] = [text(80, 1), text(75, 2)];
      b.set(a.subarray(0, 70));
      using own = new Sequence(model, 96);
      const expected = await logitsAfter(backend, model, own, b);
      using pages = new KvPages(model, roomFor(model, 8));
      using first = new Sequence(model, 96, { pages });
      await logitsAfter(backend, model, first, a);
      expect(pages.used).toBe(3);
      // It begins with a copy of the third page, and lies elsewhere than in the order of its tokens.
      using second = new Sequence(model, 96, { pages });
      second.copyFrom(first, 70);
      expect([pages.used, pages.spared]).toEqual([4, 2]);
      expect(second.byteLength).toBe(3 * pages.pageBytes);
      const shared = await logitsAfter(backend, model, second, b.subarray(70));
      expect(relativeDifference(shared, expected), kind).toBeLessThan(1e-5);
      using alone = new Sequence(model, 96, { pages });
      const unshared = await logitsAfter(backend, model, alone, b);
      expect(relativeDifference(unshared, shared)).toBeLessThan(1e-6);
      // What the one that began it holds is untouched.
      first.rewind(79);
      const again = await logitsAfter(backend, model, first, a.subarray(79));
      using fresh = new Sequence(model, 96);
      expect(relativeDifference(again, await logitsAfter(backend, model, fresh, a))).toBeLessThan(1e-5);
    }
  },
);

test("a page that others read is copied before it is written; those nobody has are given to others", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using pages = new KvPages(model, roomFor(model, 5));
  const a = text(64, 1);
  using first = new Sequence(model, 64, { pages });
  await logitsAfter(backend, model, first, a);
  using second = new Sequence(model, 96, { pages });
  second.copyFrom(first, 64);
  expect(pages.used).toBe(2);
  // Taken back into a page that the other one reads, and other tokens put there.
  first.rewind(40);
  await logitsAfter(backend, model, first, text(10, 3));
  expect([pages.used, pages.spared]).toEqual([3, 1]);
  const after = await logitsAfter(backend, model, second, text(5, 4));
  using own = new Sequence(model, 96);
  expect(
    relativeDifference(after, await logitsAfter(backend, model, own, Uint32Array.of(...a, ...text(5, 4)))),
  ).toBeLessThan(1e-5);
  first[Symbol.dispose]();
  expect(pages.used).toBe(3);
  using third = new Sequence(model, 96, { pages });
  expect(() => third.reserve()).toThrow("3 more pages");
  using fourth = new Sequence(model, 64, { pages });
  fourth.reserve();
  expect(fourth.pages).toHaveLength(2);
  fourth.trim();
  expect(fourth.pages).toHaveLength(0);
});

test("numbers that are none, in the pages of one text, are not seen by the next that has them", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using pages = new KvPages(model, roomFor(model, 1));
  for (const [layer, { heads, key, value }] of pages.cache.spec.layers.entries()) {
    const [k, v] = [heads * key, heads * value].map((cols) => backend.allocate(pageTokens, cols));
    for (const x of [k, v]) backend.write(x, new Float32Array(x.rows * x.cols).fill(Number.NaN));
    backend.appendKv(pages.cache, layer, k, v, 0);
    for (const x of [k, v]) backend.release(x);
  }
  using sequence = new Sequence(model, 32, { pages });
  const row = await logitsAfter(backend, model, sequence, text(10, 1));
  expect(row.every(Number.isFinite)).toBe(true);
});

test("a pool grows with what it holds, and sequences of one pass have the same cache", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using pages = new KvPages(model, { ...roomFor(model, 64), firstBytes: 0 });
  expect(pages.grow(4)).toBe(true);
  const sequences = [0, 1].map(() => new Sequence(model, 96, { pages }));
  const prompts = [text(50, 1), text(33, 2)];
  const run = async (tokens: Uint32Array[]) => {
    const { logits } = await runTogether(sequences.map((sequence, i) => ({ sequence, tokens: tokens[i] })));
    const rows = (await backend.read(logits!)).slice();
    backend.release(logits!);
    return rows;
  };
  backend.release((await runTogether(sequences.map((sequence, i) => ({ sequence, tokens: prompts[i] })))).logits!);
  const before = pages.cache;
  expect(pages.grow(40)).toBe(true);
  expect(pages.cache).not.toBe(before);
  expect(pages.grow(62)).toBe(false);
  const rows = await run([Uint32Array.of(7), Uint32Array.of(8)]);
  for (const [i, next] of [7, 8].entries()) {
    using own = new Sequence(model, 96);
    const expected = await logitsAfter(backend, model, own, Uint32Array.of(...prompts[i], next));
    const row = rows.subarray(i * model.logitCols).slice(0, expected.length);
    expect(relativeDifference(row, expected)).toBeLessThan(1e-5);
  }
  for (const sequence of sequences) sequence[Symbol.dispose]();
  expect(pages.used).toBe(0);
});

test("a pattern sees in pages what it sees in a row; what does not go with pages is refused", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using pages = new KvPages(model, roomFor(model, 8));
  const attention = parseAttention("window:size=20,sinks=2");
  using own = new Sequence(model, 96, { attention });
  using paged = new Sequence(model, 96, { attention, pages });
  const expected = await logitsAfter(backend, model, own, text(70, 1));
  expect(relativeDifference(await logitsAfter(backend, model, paged, text(70, 1)), expected)).toBeLessThan(1e-5);
  const refused: SequenceOptions[] = [
    { kv: parseKv("int8") },
    { kv: parseKv("sinks:budget=16,sinks=1") },
    { attention: parseAttention("minference:budget=128") },
    { exits: parseExits("top:least=0.9,from=1") },
  ];
  for (const options of refused) {
    expect(() => new Sequence(model, 32, { ...options, pages })).toThrow(UsageError);
  }
  expect(() => new KvPages(model, { maxBytes: 10 })).toThrow(UsageError);
  expect(pages.used).toBe(3);
});

test("a draft by early layers writes a page twice, and takes nothing of what is there", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using pages = new KvPages(model, roomFor(model, 8));
  const written = async (options: SequenceOptions, draft?: ReturnType<typeof layersDraft>) => {
    using sequence = new Sequence(model, 96, options);
    const ids: number[] = [];
    const settings = { sequence, stopIds: [], maxTokens: 40, draft, ...(draft && { draftTokens: 4 }) };
    for await (const { id } of generate(model, text(29, 1), settings)) ids.push(id);
    return ids;
  };
  expect(await written({ pages }, layersDraft(1))).toEqual(await written({}));
});

test("a sequence in pages has the positions of its model and the room that it was given", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using pages = new KvPages(model, roomFor(model, 64));
  expect(() => new Sequence(model, 1000, { pages })).toThrow(UsageError);
  using sequence = new Sequence(model, 40, { pages });
  await expect(sequence.runRows(text(60, 1))).rejects.toThrow(UsageError);
  expect(() => sequence.copyFrom(sequence, -1)).toThrow(UsageError);
});
