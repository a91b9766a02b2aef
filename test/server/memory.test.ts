import { expect, test } from "vitest";
import { DeviceError, UsageError } from "../../src/core/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { type HeldSequence, noteExact, SequenceMemory } from "../../src/server/engine/memory.js";
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
