import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { collect, generate, parseKv, Sequence } from "../../src/runtime/index.js";
import { f16FromF32, f32FromF16 } from "../../src/tensor/index.js";
import { architectureGolden, load, logitsOf, path } from "../golden/golden.js";
import { arbitraryText, distance, NaiveLlama } from "./naiveLlama.js";

const length = 45;
const text = arbitraryText(length);
let backend: Backend;
let model: Model;
let dense: Float32Array[];
beforeAll(async () => {
  backend = await openBackend("reference");
  model = await load(path("arch/llama"), backend, "f32");
  dense = await logitsOf(model, text);
});
afterAll(() => backend[Symbol.dispose]());

const half = (x: number): number => f32FromF16(f16FromF32(x));

/** A group of numbers in `bits` bits between its least and its largest, which are f16. */
function coded(group: readonly number[], bits: number): number[] {
  const least = half(Math.min(...group));
  const step = half((Math.max(...group) - least) / (2 ** bits - 1));
  const most = 2 ** bits - 1;
  return group.map((x) => least + step * Math.min(most, Math.max(0, Math.round((x - least) / (step || 1)))));
}

type HeldRows = NaiveLlama["held"];
const perToken =
  (bits: number): HeldRows =>
  (_, rows) =>
    rows.map((row) => Float64Array.from(coded([...row], bits)));
/** At n tokens the oldest ⌊max(0, n − residual) / 32⌋ · 32, keys by channel and values by token (heads are narrower than 32). */
const inGroups =
  (bits: number, residual: number): HeldRows =>
  (part, rows) => {
    const whole = 32 * Math.floor(Math.max(0, rows.length - residual) / 32);
    if (part === "value") return [...perToken(bits)(part, rows.slice(0, whole)), ...rows.slice(whole)];
    const result = rows.map((row) => row.slice());
    for (let first = 0; first < whole; first += 32) {
      for (let c = 0; c < rows[0].length; c++) {
        const column = coded(
          rows.slice(first, first + 32).map((row) => row[c]),
          bits,
        );
        for (const [i, x] of column.entries()) result[first + i][c] = x;
      }
    }
    return result;
  };

const definitions: Record<string, { held: HeldRows; budget?: number }> = {
  int8: { held: perToken(8) },
  int4: { held: perToken(4) },
  "kivi:residual=5": { held: inGroups(2, 5) },
  "kivi:bits=4,residual=12": { held: inGroups(4, 12) },
  "recent:budget=9,bits=4": { held: perToken(4), budget: 9 },
};

describe.each(Object.entries(definitions))("%s", (kv, { held, budget = length }) => {
  test.each(["reference", "wasm"] as const)("gives what the codes stand for, on %s", async (id) => {
    using other = id === "wasm" ? await openBackend("wasm", { threads: 1 }) : undefined;
    const subject = other === undefined ? model : await load(path("arch/llama"), other, "f32");
    const naive = await NaiveLlama.golden("llama");
    naive.held = held;
    using sequence = new Sequence(subject, length, { kv: parseKv(kv), passTokens: 1 });
    for (const [i, id] of text.entries()) {
      const first = Math.max(0, i - budget);
      const seen = Array.from({ length: i + 1 - first }, (_, n) => ({ position: first + n, turn: first + n }));
      const { logits } = naive.step(id, i, () => seen);
      const row = await sequence.run(Uint32Array.of(id));
      expect(distance(await subject.backend.read(row), logits), `token ${i}`).toBeLessThan(1e-3);
      subject.backend.release(row);
      if (i === length - 1) expect(distance(logits, dense[i])).toBeGreaterThan(kv === "int8" ? 2e-3 : 3e-2);
    }
  });
});

test("caches in few bits are as much smaller as they say", () => {
  const bytes = (kv: string, capacity: number) => {
    using sequence = new Sequence(model, capacity, { kv: parseKv(kv), passTokens: 8 });
    return sequence.byteLength / capacity;
  };
  const { headDim } = model.config;
  const { kvHeads } = model.config.blocks[0];
  const perKeyHead = bytes("full", 100) / kvHeads / model.config.layers;
  expect(perKeyHead).toBe(2 * 4 * headDim);
  // Codes, and s and z in f16.
  expect(bytes("int8", 100) / bytes("full", 100)).toBe((headDim + 4) / (4 * headDim));
  expect(bytes("int4", 100) / bytes("full", 100)).toBe((headDim / 2 + 4) / (4 * headDim));
  expect(bytes("h2o:budget=20,bits=8", 100)).toBeLessThan(0.4 * bytes("h2o:budget=20", 100));
});

test("a sequence in groups goes back to where its groups end, and no further but to the beginning", async () => {
  using sequence = new Sequence(model, length, { kv: parseKv("kivi:residual=5"), passTokens: 4 });
  backend.release(await sequence.run(text));
  // The last pass began at 44: 32 of its 40 older tokens are codes.
  expect([0, 31, 32, 44].map((to) => sequence.canRewind(to))).toEqual([true, false, true, true]);
  expect(() => sequence.rewind(31)).toThrow(UsageError);
  const run = async (tokens: Uint32Array) => {
    const logits = await sequence.run(tokens);
    const row = await backend.read(logits);
    backend.release(logits);
    return row;
  };
  sequence.rewind(40);
  const again = await run(text.subarray(40));
  sequence.rewind(40);
  expect(await run(text.subarray(40))).toEqual(again);
  sequence.rewind(0);
  expect(sequence.canRewind(0)).toBe(true);
  backend.release(await sequence.run(text));
});

test("generation with an exact tail as long as the text gives the golden tokens", async () => {
  const golden = architectureGolden("llama");
  const options = { maxTokens: golden.greedy.length, stopIds: [], kv: parseKv("kivi:residual=500") };
  expect((await collect(generate(model, golden.ids, options))).tokenIds).toEqual(golden.greedy);
});
