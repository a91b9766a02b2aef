import { expect, test } from "vitest";
import { DeviceError, Random, UsageError } from "../../src/core/index.js";
import { type KvCache, openBackend } from "../../src/kernels/index.js";
import { kvBytesPerPosition } from "../../src/model/index.js";
import { parseAttention, parseKv } from "../../src/runtime/index.js";
import { type HeldSequence, noteExact } from "../../src/server/engine/heldSequence.js";
import { SequenceMemory, type SharedRoom } from "../../src/server/engine/memory.js";
import type { Variant } from "../../src/server/engine/request.js";
import { load, path } from "../golden/golden.js";

test("where the machine has less room than was allowed, texts that ended make room in what there is", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  using memory = new SequenceMemory(model, 2 ** 30, 256);
  const variant = { key: "all", prefill: "dense" } as const;
  const text = (first: number) => Uint32Array.from({ length: 200 }, (_, i) => (first + i) % 90);
  const begin = async (first: number): Promise<HeldSequence> => {
    const held = memory.acquire(text(first), 256, variant, true)!;
    backend.release(await memory.duringPass(() => held.sequence.run(text(first).subarray(held.sequence.length))));
    noteExact(held, 256);
    return held;
  };
  const [one, two] = [await begin(0), await begin(7)];
  expect(memory.pages.used).toBe(16);
  backend.copyKv = () => {
    throw new DeviceError("no room");
  };
  // Nothing is free, and no larger cache can be had.
  expect(memory.acquire(text(3), 256, variant, true)).toBeUndefined();
  memory.release(one);
  const three = await begin(3);
  expect([memory.pages.most, memory.pages.used]).toEqual([16, 16]);
  expect(() => memory.acquire(text(5), 32 * 17, variant, true)).toThrow(UsageError);
  for (const held of [two, three]) memory.release(held);
});

test("a text waits for pages that are made when no pass holds the cache any more", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/llama"), backend, "f32");
  using memory = new SequenceMemory(model, 2 ** 30, 256);
  const variant = { key: "all", prefill: "dense" } as const;
  const prompt = Uint32Array.of(1, 2, 3);
  memory.acquire(prompt, 256, variant, true);
  memory.acquire(prompt, 256, variant, true);
  let end = () => {};
  const pass = memory.duringPass(() => new Promise<void>((resolve) => (end = resolve)));
  expect(memory.acquire(prompt, 256, variant, true)).toBeUndefined();
  const { growing } = memory;
  expect(growing).toBeDefined();
  // A pass that comes later does not keep it from growing.
  const later = memory.duringPass(async () => memory.pages.free);
  end();
  await Promise.all([pass, growing]);
  expect(await later).toBeGreaterThanOrEqual(8);
  expect(memory.growing).toBeUndefined();
  expect(memory.acquire(prompt, 256, variant, true)).toBeDefined();
});

const dense: Variant = { key: "all", prefill: "dense" };
const variants: readonly Variant[] = [
  dense,
  { key: "int8", prefill: "dense", kv: parseKv("int8") },
  { key: "h2o", prefill: "dense", kv: parseKv("h2o:budget=64") },
  { key: "kivi", prefill: "dense", kv: parseKv("kivi") },
  { key: "quest", prefill: "dense", attention: parseAttention("quest:budget=32") },
];

/** Bytes of all caches of a backend that are there, now and at most. */
function watchCaches(backend: Awaited<ReturnType<typeof openBackend>>) {
  const watch = { now: 0, most: 0 };
  const create = backend.createKvCache.bind(backend);
  backend.createKvCache = (spec) => {
    const cache = create(spec);
    watch.now += cache.byteLength;
    watch.most = Math.max(watch.most, watch.now);
    const dispose = cache[Symbol.dispose].bind(cache);
    (cache as { -readonly [K in keyof KvCache]: KvCache[K] })[Symbol.dispose] = () => {
      watch.now -= cache.byteLength;
      dispose();
    };
    return cache;
  };
  return watch;
}

test("all caches together stay within the limit, whatever texts come and go; one that fits gets room once the others end", async () => {
  using backend = await openBackend("wasm", { threads: 1 });
  using model = await load(path("arch/llama"), backend, "f32");
  const watch = watchCaches(backend);
  const pageBytes = 32 * kvBytesPerPosition(model.config);
  for (const pages of [8, 21, 64]) {
    const random = new Random(pages);
    const below = (n: number) => random.integer(n);
    const maxBytes = pages * pageBytes + 5;
    using memory = new SequenceMemory(model, maxBytes, 256);
    watch.most = 0;
    let busy: HeldSequence[] = [];
    let refused = 0;
    for (let step = 0; step < 200; step++) {
      if (busy.length > 0 && below(10) < 4) memory.release(busy.splice(below(busy.length), 1)[0]);
      const prompt = Uint32Array.from({ length: 20 + below(150) }, (_, i) => (i + 7 * below(2)) % 90);
      const capacity = prompt.length + below(256 - prompt.length);
      const variant = variants[below(3) * below(2) + below(3)];
      const acquire = () => memory.acquire(prompt, capacity, variant, true);
      let held = acquire();
      if (held === undefined) {
        refused++;
        for (const one of busy) memory.release(one);
        busy = [];
        held = acquire();
      }
      expect(held).toBeDefined();
      busy.push(held!);
      const { sequence } = held!;
      if (sequence.length < prompt.length) {
        backend.release(await memory.duringPass(() => sequence.run(prompt.subarray(sequence.length))));
        noteExact(held!, 256);
      }
      expect(memory.taken).toBeLessThanOrEqual(maxBytes);
      expect(watch.now).toBeLessThanOrEqual(memory.taken);
    }
    expect(watch.most).toBeLessThanOrEqual(maxBytes);
    // The limit is made use of, and is one.
    expect(watch.most).toBeGreaterThan(0.8 * maxBytes);
    expect(refused).toBeGreaterThan(0);
  }
});

test("memory that other models may have is asked for before it is taken; who cannot get any waits for its own texts alone", async () => {
  using backend = await openBackend("reference");
  using model = await load(path("arch/llama"), backend, "f32");
  const pageBytes = 32 * kvBytesPerPosition(model.config);
  let granted = 10 * pageBytes;
  const shared: SharedRoom = {
    most: 40 * pageBytes,
    take: (bytes) => memory.taken + bytes <= granted,
    busy: () => new Error("others are busy"),
  };
  using memory: SequenceMemory = new SequenceMemory(model, 2 ** 30, 256, shared);
  const prompt = Uint32Array.of(1, 2, 3);
  // Not 16 pages, with which it would begin where there is room.
  const first = memory.acquire(prompt, 256, dense, true)!;
  expect(memory.taken).toBe(8 * pageBytes);
  for (const variant of [dense, variants[4]]) expect(memory.acquire(prompt, 256, variant, true)).toBeUndefined();
  memory.release(first);
  const own = memory.acquire(prompt, 256, variants[4], true)!;
  expect(memory.taken).toBe(own.ownBytes);
  memory.release(own);
  granted = 0;
  expect(() => memory.acquire(prompt, 256, dense, true)).toThrow("others are busy");
  // With nobody else there would be room for 40.
  expect(() => memory.acquire(prompt, 32 * 41, dense, true)).toThrow(`room for ${40 * pageBytes}`);
});
