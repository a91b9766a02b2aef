import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ProblemsError, Random, RarefyError } from "../core/index.js";
import { argmax, descending, logProbability } from "./logits.js";
import { draw, logitFilters, Sampler } from "./samplers.js";

/** Few distinct values, so that ties are common, and some tokens that were dropped before. */
const logits = fc
  .array(
    fc.oneof(
      { weight: 8, arbitrary: fc.integer({ min: -20, max: 20 }).map((v) => v / 4) },
      { weight: 1, arbitrary: fc.constant(Number.NEGATIVE_INFINITY) },
    ),
    { minLength: 1, maxLength: 60 },
  )
  .filter((values) => values.some(Number.isFinite))
  .map((values) => Float32Array.from(values));

const kept = (filtered: Float32Array) => [...filtered.keys()].filter((id) => filtered[id] > Number.NEGATIVE_INFINITY);

function softmax(values: Float32Array): number[] {
  const exponentials = [...values].map(Math.exp);
  const total = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((e) => e / total);
}

const ranked = (values: Float32Array) => kept(values).sort((a, b) => values[b] - values[a] || a - b);

describe("logits", () => {
  test("descending gives every finite logit by value, ties by the lowest id", () => {
    fc.assert(
      fc.property(logits, (values) => {
        expect([...descending(values)]).toEqual(ranked(values));
      }),
    );
  });

  test("argmax takes the lowest id of the largest", () => {
    expect(argmax(Float32Array.of(1, 3, 2, 3))).toBe(1);
  });

  test("logProbability is ln softmax, also for huge logits", () => {
    const values = Float32Array.of(1, 2, 3);
    for (const [id, p] of softmax(values).entries()) expect(logProbability(values, id)).toBeCloseTo(Math.log(p), 12);
    expect(logProbability(Float32Array.of(1e30, 0), 0)).toBe(0);
  });
});

describe("filters", () => {
  const applied = (name: keyof typeof logitFilters, values: Float32Array, setting: number, occurred: number[] = []) => {
    const filtered = values.slice();
    logitFilters[name].apply(filtered, setting, occurred);
    return filtered;
  };

  test("top-k keeps the k best, ties by the lowest id, and changes none of them", () => {
    fc.assert(
      fc.property(logits, fc.integer({ min: 1, max: 70 }), (values, k) => {
        const filtered = applied("topK", values, k);
        const best = ranked(values).slice(0, k);
        expect(kept(filtered)).toEqual(best.toSorted((a, b) => a - b));
        for (const id of best) expect(filtered[id]).toBe(values[id]);
      }),
    );
  });

  test("top-k 0 keeps all", () => {
    expect(applied("topK", Float32Array.of(1, 3, 2), 0)).toEqual(Float32Array.of(1, 3, 2));
    expect(() => new Sampler({ topK: 0 })).not.toThrow();
  });

  test("top-p keeps the smallest set of best tokens that reaches p", () => {
    fc.assert(
      fc.property(logits, fc.double({ min: 0.01, max: 0.99, noNaN: true }), (values, p) => {
        const probabilities = softmax(values);
        const set = kept(applied("topP", values, p));
        expect(set).toEqual(
          ranked(values)
            .slice(0, set.length)
            .toSorted((a, b) => a - b),
        );
        const mass = set.reduce((sum, id) => sum + probabilities[id], 0);
        const least = Math.min(...set.map((id) => probabilities[id]));
        expect(mass).toBeGreaterThanOrEqual(p - 1e-9);
        expect(mass - least).toBeLessThan(p + 1e-9);
      }),
    );
  });

  test("top-p of 1 keeps everything", () => {
    expect(applied("topP", Float32Array.of(0, -50, 3), 1)).toEqual(Float32Array.of(0, -50, 3));
  });

  test("min-p keeps what is at least that fraction of the best", () => {
    fc.assert(
      fc.property(logits, fc.constantFrom(0, 0.013, 0.1, 0.37, 0.9, 1), (values, p) => {
        const probabilities = softmax(values);
        const best = Math.max(...probabilities);
        const expected = kept(values).filter((id) => probabilities[id] >= p * best * (1 - 1e-9));
        expect(kept(applied("minP", values, p))).toEqual(expected);
      }),
    );
  });

  test("temperature scales differences; 0 keeps the best; a tiny one stays finite", () => {
    expect(applied("temperature", Float32Array.of(1, 2, 4), 0.5)).toEqual(Float32Array.of(-6, -4, 0));
    expect(kept(applied("temperature", Float32Array.of(1, 4, 4), 0))).toEqual([1]);
    expect(softmax(applied("temperature", Float32Array.of(1, 4, 2), 1e-40))).toEqual([0, 1, 0]);
  });

  test("the repetition penalty divides positive and multiplies negative logits, once for each token", () => {
    const filtered = applied("repetitionPenalty", Float32Array.of(2, -2, 2, -2), 2, [0, 1, 0, 1, 0]);
    expect(filtered).toEqual(Float32Array.of(1, -4, 2, -2));
  });
});

describe("Sampler", () => {
  test("draws with the probabilities of the softmax: χ² of 50,000 draws below its 99.9 % point", () => {
    const values = Float32Array.of(0, 1, -1, 2, Number.NEGATIVE_INFINITY, 0.5);
    const random = new Random(7);
    const counts = new Float64Array(values.length);
    for (let i = 0; i < 50_000; i++) counts[draw(values, random)]++;
    expect(counts[4]).toBe(0);
    let chiSquare = 0;
    for (const [id, p] of softmax(values).entries()) {
      if (p > 0) chiSquare += (counts[id] - 50_000 * p) ** 2 / (50_000 * p);
    }
    expect(chiSquare).toBeLessThan(18.47);
  });

  test("the same seed picks the same tokens, another seed others", () => {
    const values = Float32Array.from({ length: 100 }, (_, i) => Math.sin(i));
    const picks = (seed: number) => {
      const sampler = new Sampler({ temperature: 1, topP: 0.95, seed });
      return Array.from({ length: 50 }, () => sampler.pick(values, []));
    };
    expect(picks(1)).toEqual(picks(1));
    expect(picks(1)).not.toEqual(picks(2));
  });

  test("picks only what all filters keep, and leaves the logits as they were", () => {
    const options = fc.record({
      temperature: fc.double({ min: 0, max: 3, noNaN: true }),
      topK: fc.integer({ min: 1, max: 20 }),
      topP: fc.double({ min: 0.05, max: 1, noNaN: true }),
      minP: fc.double({ min: 0, max: 1, noNaN: true }),
      repetitionPenalty: fc.double({ min: 0.5, max: 2, noNaN: true }),
      seed: fc.nat(),
    });
    fc.assert(
      fc.property(logits, options, (values, settings) => {
        const before = values.slice();
        const id = new Sampler(settings).pick(values, [0]);
        expect(values).toEqual(before);
        expect(values[id]).toBeGreaterThan(Number.NEGATIVE_INFINITY);
        const filtered = values.slice();
        for (const [name, filter] of Object.entries(logitFilters)) {
          filter.apply(filtered, settings[name as keyof typeof settings], [0]);
        }
        expect(kept(filtered)).toContain(id);
      }),
    );
  });

  test("without options takes the best; greedy only while nothing else can decide", () => {
    expect(new Sampler().pick(Float32Array.of(1, 5, 5), [1])).toBe(1);
    expect(new Sampler().greedy).toBe(true);
    expect(new Sampler({ temperature: 0.1 }).greedy).toBe(false);
    expect(new Sampler({ repetitionPenalty: 1.1 }).greedy).toBe(false);
    expect(new Sampler({ repetitionPenalty: 10 }).pick(Float32Array.of(1, 5, 4), [1])).toBe(2);
  });

  test("reports every setting that is out of range", () => {
    const make = () => new Sampler({ temperature: -1, topK: 1.5, topP: 0, minP: Number.NaN, repetitionPenalty: 0 });
    expect(make).toThrow(ProblemsError);
    expect(make).toThrow(/temperature is -1.*topK is 1\.5.*topP is 0.*minP is NaN/s);
  });

  test("refuses logits with NaN or without any token", () => {
    expect(() => draw(Float32Array.of(1, Number.NaN), new Random(1))).toThrow(RarefyError);
    expect(() => draw(new Float32Array(2).fill(Number.NEGATIVE_INFINITY), new Random(1))).toThrow(RarefyError);
  });
});
