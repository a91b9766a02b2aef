import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Random, UsageError } from "../../src/core/index.js";
import { type Backend, openBackend } from "../../src/kernels/index.js";
import type { Model } from "../../src/model/index.js";
import {
  collect,
  type Draft,
  type GenerateOptions,
  generate,
  layersDraft,
  lookupDraft,
  modelDraft,
  parseKv,
  Sampler,
  Sequence,
} from "../../src/runtime/index.js";
import { accept } from "../../src/runtime/speculate/accept.js";
import { DraftLength } from "../../src/runtime/speculate/draftLength.js";
import { followers } from "../../src/runtime/speculate/lookupDraft.js";
import { architectureGolden, load, path } from "../golden/golden.js";

const golden = architectureGolden("llama");
let backend: Backend;
let model: Model;
let other: Model;
beforeAll(async () => {
  backend = await openBackend("wasm", { threads: 1 });
  model = await load(path("arch/llama"), backend, "f32");
  other = await load(path("arch/qwen2"), backend, "f32");
});
afterAll(() => backend[Symbol.dispose]());

const drafts: Record<string, () => Draft> = {
  "the model itself": () => modelDraft(model),
  "another model": () => modelDraft(other),
  lookup: lookupDraft,
  "layers=1": () => layersDraft(1),
};

const run = (options: GenerateOptions) =>
  collect(generate(model, golden.ids, { maxTokens: golden.greedy.length, stopIds: [], ...options }));

describe.each(Object.entries(drafts))("a draft by %s", (name, draft) => {
  test.each([1, 3, 7, undefined])("of %s tokens gives the golden greedy tokens", async (draftTokens) => {
    const { tokenIds, speculation } = await run({ draft: draft(), draftTokens });
    expect(tokenIds).toEqual(golden.greedy);
    const { drafted, accepted, rounds } = speculation!;
    expect(accepted).toBeLessThanOrEqual(drafted);
    if (draftTokens === undefined) return;
    expect(drafted).toBeLessThanOrEqual(rounds * draftTokens);
    if (name === "the model itself") {
      expect(accepted).toBe(drafted);
      expect(rounds).toBe(Math.ceil((golden.greedy.length - 1) / (draftTokens + 1)));
    }
  });

  test("gives log probabilities, and leaves the sequence with what was given", async () => {
    const plain: (number | undefined)[] = [];
    for await (const step of generate(model, golden.ids, { maxTokens: 9, stopIds: [], logprobs: true })) {
      plain.push(step.logprob);
    }
    using sequence = new Sequence(model, golden.ids.length + 40);
    const options = { maxTokens: 9, stopIds: [], logprobs: true, draft: draft(), draftTokens: 5, sequence };
    let i = 0;
    for await (const step of generate(model, golden.ids, options)) expect(step.logprob).toBeCloseTo(plain[i++]!, 4);
    const whole = [...golden.ids, ...golden.greedy.slice(0, 9)];
    expect(sequence.length).toBeGreaterThanOrEqual(whole.length - 1);
    expect([...sequence.tokens]).toEqual(whole.slice(0, sequence.length));
    // The rest of the text follows as if nothing had been speculated.
    const rest = await collect(generate(model, whole, { maxTokens: 5, stopIds: [], sequence }));
    expect(rest.tokenIds).toEqual(golden.greedy.slice(9, 14));
  });

  test("ends where the sequence is full, where asked to stop, and with the same seed alike", async () => {
    const { ids, greedy } = golden;
    using sequence = new Sequence(model, ids.length + 6);
    const full = await run({ draft: draft(), draftTokens: 4, sequence });
    expect(full.reason).toBe("capacity");
    expect(full.tokenIds).toEqual(greedy.slice(0, 7));
    const stopId = greedy[5];
    const stopped = await run({ draft: draft(), draftTokens: 4, stopIds: [stopId] });
    expect(stopped.tokenIds).toEqual(greedy.slice(0, greedy.indexOf(stopId) + 1));
    const sampled = () => run({ draft: draft(), temperature: 1, topP: 0.9, repetitionPenalty: 1.1, seed: 5 });
    const once = await sampled();
    expect((await sampled()).tokenIds).toEqual(once.tokenIds);
  });

  test("draws from the law of the model: chi-square of two tokens against their probabilities", async () => {
    // Three tokens are left after the filters, so that there are nine texts of two.
    const sampling = { temperature: 1.5, topK: 3 };
    const law = async (after: readonly number[]) => {
      using sequence = new Sequence(model, golden.ids.length + 4);
      const logits = await sequence.run(Uint32Array.from([...golden.ids, ...after]));
      const row = (await backend.read(logits)).subarray(0, model.config.vocabSize);
      backend.release(logits);
      return new Sampler(sampling).law(row, sequence.tokens);
    };
    const counts = new Map<string, { expected: number; seen: number }>();
    const samples = 250;
    for (const [a, pa] of (await law([])).entries()) {
      if (pa === 0) continue;
      for (const [b, pb] of (await law([a])).entries()) {
        if (pb > 0) counts.set(`${a} ${b}`, { expected: samples * pa * pb, seen: 0 });
      }
    }
    expect(counts.size).toBe(9);
    using sequence = new Sequence(model, golden.ids.length + 6);
    const own = draft();
    for (let seed = 0; seed < samples; seed++) {
      const options = {
        ...sampling,
        maxTokens: 3,
        stopIds: [],
        draft: own,
        draftTokens: 2,
        sequence,
        seed: 1000 + seed,
      };
      const { tokenIds } = await collect(generate(model, golden.ids, options));
      counts.get(`${tokenIds[0]} ${tokenIds[1]}`)!.seen++;
    }
    let chiSquare = 0;
    for (const { expected, seen } of counts.values()) chiSquare += (seen - expected) ** 2 / expected;
    // 99.9 % of 8 degrees of freedom.
    expect(chiSquare).toBeLessThan(26.12);
  });
});

test("the rule of acceptance, in numbers: what comes out is p, and β of it was accepted", () => {
  const p = Float64Array.of(0.5, 0.3, 0.2);
  const q = Float64Array.of(0.2, 0.5, 0.3);
  const sampler = new Sampler({ seed: 7 });
  const seen = [0, 0, 0];
  let accepted = 0;
  const samples = 20_000;
  for (let n = 0; n < samples; n++) {
    const id = sampler.draw(q);
    const result = accept(
      [id],
      () => q,
      () => p,
      () => sampler.uniform(),
      (weights) => sampler.draw(weights),
    );
    accepted += result.accepted;
    seen[result.accepted === 1 ? id : result.next]++;
  }
  expect(Math.abs(accepted / samples - 0.7)).toBeLessThan(0.012);
  const chiSquare = seen.reduce((sum, count, v) => sum + (count - samples * p[v]) ** 2 / (samples * p[v]), 0);
  expect(chiSquare).toBeLessThan(13.8);
});

test("what was rejected is drawn anew from what the draft gave too little, and certain proposals count as certain", () => {
  const draws: number[][] = [];
  const draw = (weights: Float64Array) => draws.push([...weights.map((w) => Math.round(w * 1e9) / 1e9)]);
  const p = Float64Array.of(0.5, 0.3, 0.2);
  const q = Float64Array.of(0.2, 0.5, 0.3);
  accept(
    [1],
    () => q,
    () => p,
    () => 0.61,
    draw,
  );
  accept(
    [1],
    () => q,
    () => p,
    () => 0.59,
    draw,
  );
  accept(
    [1],
    () => undefined,
    () => p,
    () => 0.31,
    draw,
  );
  accept(
    [1],
    () => p,
    () => p,
    () => 0.999,
    draw,
  );
  expect(draws).toEqual([
    [0.3, 0, 0],
    [0.5, 0.3, 0.2],
    [0.5, 0, 0.2],
    [0.5, 0.3, 0.2],
  ]);
});

test("prompt look-up finds the newest place of the longest match", () => {
  expect(followers([1, 2, 3, 9, 8, 2, 3, 7, 1, 2, 3], 2)).toEqual([9, 8]);
  expect(followers([5, 2, 3, 9, 8, 2, 3, 7, 6, 2, 3], 3)).toEqual([7, 6, 2]);
  expect(followers([4, 4], 3)).toEqual([4]);
  expect(followers([1, 2, 3], 3)).toEqual([]);
  expect(followers([1], 3)).toEqual([]);
});

test("as many tokens are proposed as are worth their time", () => {
  const chosen = (draftMs: number, verifyMs: (rows: number) => number, chance: number) => {
    const random = new Random(3);
    const length = new DraftLength();
    for (let round = 0; round < 60; round++) {
      const drafted = length.next();
      let accepted = 0;
      while (accepted < drafted && random.uniform() < chance) accepted++;
      length.record({ drafted, accepted, draftMs: draftMs * drafted, verifyMs: verifyMs(1 + drafted) });
    }
    return length.next();
  };
  // A draft of 8 ms for a target of 30 ms: 4 is best at 0.8.
  expect([3, 4, 5]).toContain(chosen(8, () => 30, 0.8));
  expect(chosen(0.01, () => 30, 0.95)).toBeGreaterThan(10);
  expect(chosen(20, (rows) => 20 * rows, 0.5)).toBe(0);
  expect(new DraftLength(5).next()).toBe(5);
});

test("a draft does not go with caches that cannot take back", async () => {
  for (const kv of ["recent:budget=40", "h2o:budget=40", "kivi:residual=8"]) {
    await expect(run({ draft: lookupDraft(), kv: parseKv(kv) })).rejects.toThrow(UsageError);
  }
  for (const layers of [0, model.config.layers, 1.5]) {
    await expect(run({ draft: layersDraft(layers) })).rejects.toThrow(UsageError);
  }
  await expect(run({ draft: lookupDraft(), draftTokens: 17 })).rejects.toThrow(UsageError);
  // With an exact tail as long as the text it is the golden text.
  const { tokenIds } = await run({ draft: layersDraft(1), draftTokens: 3, kv: parseKv("kivi:residual=200") });
  expect(tokenIds).toEqual(golden.greedy);
});
