import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../../src/core/index.js";
import { evaluateQuality } from "../../src/eval/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import { parseKv, Sequence } from "../../src/runtime/index.js";
import { load, logitsOf, path } from "../golden/golden.js";
import { arbitraryText, distance, NaiveLlama } from "./naiveLlama.js";

const [prompt, length, window] = [30, 40, 6];
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

/** What each layer keeps of the prompt, its last tokens included. */
const definitions: Record<string, { keep: (layer: number) => number; kernel: number }> = {
  "snapkv:budget=12,window=6": { keep: () => 12, kernel: 5 },
  "snapkv:budget=9,window=6,kernel=1": { keep: () => 9, kernel: 1 },
  // Of 24 older tokens: least ⌊8 / 4⌋ = 2, most min(16 − 2, 24) = 14, and two layers.
  "pyramidkv:budget=14,window=6,beta=4": { keep: (layer) => [20, 8][layer], kernel: 5 },
};

/** Logits from the last token of the prompt on, in float64. */
async function naively({ keep, kernel }: (typeof definitions)[string]): Promise<Float64Array[]> {
  const naive = await NaiveLlama.golden("llama");
  const upTo = (i: number) => Array.from({ length: i + 1 }, (_, position) => ({ position, turn: position }));
  const scores = Array.from({ length: naive.layers }, () =>
    Array.from({ length: naive.kvHeads }, () => new Float64Array(prompt)),
  );
  const logits: Float64Array[] = [];
  for (let i = 0; i < prompt; i++) {
    const step = naive.step(text[i], i, () => upTo(i));
    if (i === prompt - 1) logits.push(step.logits);
    if (i < prompt - window) continue;
    for (const [layer, heads] of step.shares.entries()) {
      for (const [head, shares] of heads.entries()) {
        for (const [position, share] of shares) scores[layer][naive.keyHead(head)][position] += share;
      }
    }
  }
  const kept = scores.map((heads, layer) =>
    heads.map((score) => {
      const older = [...score.subarray(0, prompt - window)];
      const half = (kernel - 1) / 2;
      const mean = older.map((_, i) => older.slice(Math.max(0, i - half), i + half + 1).reduce((a, b) => a + b, 0));
      const best = [...mean.keys()].sort((a, b) => mean[b] - mean[a] || a - b).slice(0, keep(layer) - window);
      return new Set([...best, ...Array.from({ length: window }, (_, n) => prompt - window + n)]);
    }),
  );
  for (let i = prompt; i < length; i++) {
    const see = (layer: number, head: number) =>
      upTo(i).filter(({ position }) => position >= prompt || kept[layer][naive.keyHead(head)].has(position));
    logits.push(naive.step(text[i], i, see).logits);
  }
  return logits;
}

async function run(sequence: Sequence, tokens: Uint32Array, chunk?: number): Promise<Float32Array> {
  const { backend } = sequence.model;
  const logits = await sequence.run(tokens, { chunk });
  const row = await backend.read(logits);
  backend.release(logits);
  return row;
}

describe.each(Object.entries(definitions))("%s", (kv, definition) => {
  test.each(["reference", "wasm"] as const)("keeps of a prompt what its last tokens look at, on %s", async (id) => {
    using other = id === "wasm" ? await openBackend("wasm", { threads: 1 }) : undefined;
    const subject = other === undefined ? model : await load(path("arch/llama"), other, "f32");
    const expected = await naively(definition);
    expect(distance(expected[length - prompt], dense[length - 1])).toBeGreaterThan(1e-2);
    for (const chunk of [undefined, 4]) {
      using sequence = new Sequence(subject, length, { kv: parseKv(kv) });
      const rows = [await run(sequence, text.subarray(0, prompt), chunk)];
      expect(sequence.canRewind(prompt - 1)).toBe(false);
      subject.backend.takeCounters();
      for (let i = prompt; i < length; i++) rows.push(await run(sequence, text.subarray(i, i + 1)));
      for (const [i, row] of rows.entries()) expect(distance(row, expected[i]), `token ${i}`).toBeLessThan(1e-4);
      // Layer by layer it reads what it kept, and what came since.
      const { kvHeads } = subject.config.blocks[0];
      const later = Array.from({ length: length - prompt }, (_, n) => n + 1);
      const slots = [0, 1].flatMap((layer) => later.map((n) => definition.keep(layer) + n));
      const { kvBytesRead } = subject.backend.takeCounters();
      expect(kvBytesRead).toBe(slots.reduce((a, b) => a + b, 0) * kvHeads * 8 * subject.config.headDim);
    }
  });
});

test("prompts that fit, and single tokens, are left whole; the beginning is always open", async () => {
  for (const kv of ["snapkv", "pyramidkv", "snapkv:budget=31,window=6", "snapkv:budget=31,window=30"]) {
    using sequence = new Sequence(model, length, { kv: parseKv(kv) });
    await run(sequence, text.subarray(0, prompt));
    for (let i = prompt; i < length; i++) {
      expect(distance(await run(sequence, text.subarray(i, i + 1)), dense[i])).toBeLessThan(1e-4);
    }
    expect(sequence.canRewind(prompt)).toBe(true);
    sequence.rewind(0);
    expect(distance(await run(sequence, text), dense[length - 1])).toBeLessThan(1e-4);
  }
  expect(() => parseKv("snapkv:budget=6,window=6")).toThrow(UsageError);
});

test("in eval the first tokens of a window are the prompt, and the others are scored", async () => {
  const tokens = { tokens: text, textSha256: "", sha256: "" } as never;
  const variants = [
    { name: "dense", model },
    { name: "kept", model, kv: parseKv("snapkv:budget=12,window=6") },
  ];
  const [all, kept] = await evaluateQuality(variants, tokens, { window: length, promptTokens: prompt });
  const nll = (logits: readonly ArrayLike<number>[]) =>
    logits.reduce((sum, row, i) => {
      const total = Array.from({ length: model.config.vocabSize }, (_, v) => Math.exp(row[v])).reduce(
        (a, b) => a + b,
        0,
      );
      return sum + Math.log(total) - row[text[prompt + i]];
    }, 0) / logits.length;
  expect(all.tokens).toBe(length - prompt);
  expect(all.promptTokens).toBe(prompt);
  expect(all.nll).toBeCloseTo(nll(dense.slice(prompt - 1, length - 1)), 4);
  const expected = await naively(definitions["snapkv:budget=12,window=6"]);
  expect(kept.nll).toBeCloseTo(nll(expected.slice(0, -1)), 4);
});
