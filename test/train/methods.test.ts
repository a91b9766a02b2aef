import { describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { rewire } from "../../src/train/methods/dynamicSparse.js";
import { erkCounts } from "../../src/train/methods/erk.js";
import { cubicSparsity } from "../../src/train/methods/gradual.js";
import { growPruneDensity } from "../../src/train/methods/growPrune.js";
import { trainMethods } from "../../src/train/methods/index.js";
import { nearestScale, softFactors } from "../../src/train/methods/sSte.js";
import { constant, cosine, type Schedule } from "../../src/train/optimizers/schedule.js";
import { isStateArray, type State } from "../../src/train/state.js";
import { Training } from "../../src/train/training.js";
import type { FloatArray } from "../../src/train/values.js";
import { threeLayerBatch, threeLayers, threeLayerWeights } from "./threeLayers.js";

const steps = 60;

async function begin(id: string, options: object = {}, rate: Schedule = constant(0.01)): Promise<Training> {
  const { method } = await trainMethods[id]();
  return new Training({
    objective: threeLayers(),
    weights: threeLayerWeights(1),
    optimizer: { rate },
    steps,
    seed: 2,
    method: (context) => method.start(context, method.options.parse(options)),
  });
}

const zeros = (values: ArrayLike<number>) => Array.from(values).filter((v) => v === 0).length;
const lossOf = (training: Training, weights: ReadonlyMap<string, FloatArray>) =>
  training.options.objective.loss(weights, threeLayerBatch(77, 60));

/** No group of four along a row has more than two non-zeros. */
function isTwoOfFour(values: ArrayLike<number>): boolean {
  for (let g = 0; g < values.length; g += 4) {
    let nonZeros = 0;
    for (let i = g; i < g + 4; i++) if (values[i] !== 0) nonZeros++;
    if (nonZeros > 2) return false;
  }
  return true;
}

describe("every method", () => {
  test.each(Object.keys(trainMethods))("%s learns: the loss on fresh data falls", async (id) => {
    const training = await begin(id, id === "iht" ? { density: 0.6 } : {});
    const before = await lossOf(training, training.weights);
    for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
    expect(await lossOf(training, training.finish())).toBeLessThan(before);
  });

  test.each(["ste", "sr-ste", "s-ste", "ast", "cast", "transposable"])(
    "%s ends in 2:4 with exact zeros",
    async (id) => {
      const training = await begin(id);
      for (let step = 0; step < 10; step++) await training.advance(threeLayerBatch(step));
      const weights = training.finish();
      expect([...weights.keys()]).toEqual(["a", "b", "c"]);
      for (const values of weights.values()) expect(isTwoOfFour(values)).toBe(true);
    },
  );
});

describe("gradient rules of masked training", () => {
  const g = 10;
  const w = 0.001;
  /** Gradient of a pruned weight and of a kept one, both w, from g. */
  async function ruleOf(id: string, options: object): Promise<[pruned: number, kept: number]> {
    const { method } = await trainMethods[id]();
    const parameters = [{ name: "w", shape: [1, 4], layer: "0", role: "inner" as const }];
    const weights = new Map<string, FloatArray>([["w", Float64Array.of(w, 2, w, 3)]]);
    const run = method.start(
      { parameters, weights, optimizer: { rate: constant(1) }, steps, seed: 0 },
      method.options.parse(options),
    );
    run.refresh!(weights, 0);
    const gradients = new Map<string, FloatArray>([["w", Float64Array.of(g, g, g, g)]]);
    run.gradient?.(gradients, weights, 0);
    expect(Array.from(run.effective!(weights).get("w")!)).toEqual([0, 2, 0, 3]);
    return [gradients.get("w")![0], gradients.get("w")![1]];
  }

  test.each<[string, object, [number, number]]>([
    ["ste", { rule: "dense" }, [10, 10]],
    ["ste", { rule: "autograd" }, [0, 10]],
    // The lecture's example: w = 0.001 and g = 10 move a pruned weight by 0.01.
    ["ste", { rule: "maskDerivative" }, [0.01, 30]],
    ["sr-ste", { decay: 2 }, [10.002, 10]],
  ])("%s %o", async (id, options, expected) => {
    const found = await ruleOf(id, options);
    for (const i of [0, 1]) expect(found[i]).toBeCloseTo(expected[i], 12);
  });

  test("masks are chosen at multiples of the interval; drift counts from the first choice", async () => {
    const training = await begin("ste", { interval: 4 }, constant(0.05));
    const entries = 96 + 144 + 48;
    const flat = () => [...training.run.masks!.values()].flatMap((mask) => [...mask]);
    let [first, last] = [[] as number[], [] as number[]];
    for (let step = 0; step < 12; step++) {
      await training.advance(threeLayerBatch(step));
      const now = flat();
      if (step === 0) first = now;
      const differing = (a: number[]) => now.filter((keep, i) => keep !== a[i]).length / entries;
      if (step > 0 && step % 4 !== 0) expect(now).toEqual(last);
      if (step === 4 || step === 8) {
        expect(differing(last)).toBeGreaterThan(0);
        expect(training.run.metrics!()).toEqual({ flipRate: differing(last), drift: differing(first) });
      }
      last = now;
    }
  });

  test("SR-STE holds masks still where STE lets them flip", async () => {
    const flipsOf = async (id: string, options: object) => {
      const training = await begin(id, options, constant(0.03));
      let total = 0;
      for (let step = 0; step < steps; step++) {
        await training.advance(threeLayerBatch(step, 2));
        total += training.run.metrics!().flipRate;
      }
      return total;
    };
    expect(await flipsOf("sr-ste", { decay: 1 })).toBeLessThan(0.7 * (await flipsOf("ste", {})));
  });
});

describe("S-STE", () => {
  const softTwoOfFour = (values: Float64Array, out: Float64Array) => {
    const factors = softFactors(Float32Array.from(values), 4, 2);
    for (let i = 0; i < values.length; i++) out[i] = values[i] * factors[i];
  };
  const random = new Random(4);
  const weight = Float64Array.from({ length: 40_000 }, () => random.normal());
  const soft = new Float64Array(40_000);
  softTwoOfFour(weight, soft);

  test("keeps the two largest of four, each shortened by the second smallest", () => {
    const out = new Float64Array(4);
    softTwoOfFour(Float64Array.of(-3, 1, 0.5, 2), out);
    for (const [i, expected] of [-2, 0, 0, 1].entries()) expect(out[i]).toBeCloseTo(expected, 6);
    expect(isTwoOfFour(soft)).toBe(true);
  });

  test("is continuous where hard 2:4 jumps", () => {
    const at = (d: number) => {
      const out = new Float64Array(4);
      softTwoOfFour(Float64Array.of(2, 1 + d, 1 - d, 0.1), out);
      return out;
    };
    for (const d of [1e-3, 1e-6]) {
      const [left, right] = [at(-d), at(d)];
      for (let i = 0; i < 4; i++) expect(Math.abs(left[i] - right[i])).toBeLessThanOrEqual(4 * d);
    }
  });

  test("its scale brings β·S(W) nearest to W; for normal weights β is about 1.47, the error 0.26", () => {
    const beta = nearestScale(weight, soft);
    const error = (b: number) => weight.reduce((sum, w, i) => sum + (w - b * soft[i]) ** 2, 0);
    expect(error(beta)).toBeLessThan(Math.min(error(beta + 0.01), error(beta - 0.01)));
    expect(beta).toBeCloseTo(1.47, 1);
    expect(error(beta) / weight.reduce((sum, w) => sum + w * w, 0)).toBeCloseTo(0.26, 2);
  });
});

describe("CAST", () => {
  test("the gradient of its scales is the central difference", async () => {
    const training = await begin("cast");
    const { run, weights, options } = training;
    run.refresh!(weights, 0);
    const random = new Random(8);
    for (const [name, values] of weights) {
      if (name.endsWith(":scale")) for (let i = 0; i < values.length; i++) values[i] = 1 + 0.1 * random.normal();
    }
    const { gradients } = await options.objective.lossAndGradients(run.effective!(weights), threeLayerBatch(0));
    run.gradient!(gradients, weights, 0);
    const h = 2 ** -9;
    for (const name of ["b:scale", "b"]) {
      const values = weights.get(name)!;
      for (const i of [0, 5, 23]) {
        const start = values[i];
        const at = async (w: number) => {
          values[i] = w;
          return options.objective.loss(run.effective!(weights), threeLayerBatch(0));
        };
        const difference = ((await at(start + h)) - (await at(start - h))) / (2 * h);
        values[i] = start;
        expect(gradients.get(name)![i]).toBeCloseTo(difference, 4);
      }
    }
  });

  test("pruned weights shrink towards nothing, so that pruning at the end costs little", async () => {
    const training = await begin("cast", { decay: 1 }, cosine({ peak: 0.02, steps }));
    const ratio = () => {
      const sums = { kept: 0, pruned: 0 };
      for (const [name, mask] of training.run.masks!) {
        for (const [i, w] of training.weights.get(name)!.entries()) sums[mask[i] ? "kept" : "pruned"] += Math.abs(w);
      }
      return sums.pruned / sums.kept;
    };
    await training.advance(threeLayerBatch(0));
    const first = ratio();
    for (let step = 1; step < steps; step++) await training.advance(threeLayerBatch(step));
    expect(ratio()).toBeLessThan(0.25 * first);
    const dense = new Map(Array.from(training.effective, ([name, values]) => [name, values.slice()]));
    const before = await lossOf(training, dense);
    expect(Math.abs((await lossOf(training, training.finish())) - before)).toBeLessThan(0.01 * before);
  });

  test("folding never revives a zero and changes nothing else", async () => {
    const training = await begin("cast");
    for (let step = 0; step < 5; step++) await training.advance(threeLayerBatch(step));
    const seen = new Map(Array.from(training.effective, ([name, values]) => [name, values.slice()]));
    const { masks } = training.run;
    const finished = training.finish();
    for (const [name, mask] of masks!) {
      for (let i = 0; i < mask.length; i++) expect(finished.get(name)![i]).toBe(mask[i] ? seen.get(name)![i] : 0);
    }
  });
});

describe("gradual pruning", () => {
  test("the schedule starts and ends where it should and flattens", () => {
    expect(cubicSparsity(0.2, 0.9, 0)).toBeCloseTo(0.2);
    expect(cubicSparsity(0.2, 0.9, 1)).toBeCloseTo(0.9);
    expect(cubicSparsity(0, 0.8, 0.5)).toBeCloseTo(0.7);
    const values = Array.from({ length: 11 }, (_, i) => cubicSparsity(0, 0.9, i / 10));
    const rises = values.slice(1).map((v, i) => v - values[i]);
    for (const [i, rise] of rises.entries()) {
      expect(rise).toBeGreaterThanOrEqual(0);
      if (i > 0) expect(rise).toBeLessThan(rises[i - 1]);
    }
  });

  test("masks are nested and hold exactly round(S·n) zeros", async () => {
    const training = await begin("gradual", { final: 0.8, until: 0.5, interval: 10 });
    let last: Uint8Array | undefined;
    for (let step = 0; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      const mask = training.run.masks!.get("b")!;
      if (last !== undefined) for (let i = 0; i < mask.length; i++) expect(mask[i]).toBeLessThanOrEqual(last[i]);
      last = mask.slice();
      if (step % 10 === 0 && step <= 30) {
        expect(zeros(mask)).toBe(Math.round(144 * cubicSparsity(0, 0.8, step / 30)));
      }
    }
    expect(zeros(training.weights.get("b")!)).toBe(Math.round(0.8 * 144));
  });
});

test("a linear schedule loses as much each time", async () => {
  const training = await begin("gradual", { final: 0.75, until: 0.5, interval: 10, schedule: "linear" });
  const found: number[] = [];
  for (let step = 0; step < steps; step++) {
    await training.advance(threeLayerBatch(step));
    if (step % 10 === 0 && step <= 30) found.push(zeros(training.run.masks!.get("b")!));
  }
  expect(found).toEqual([0, 36, 72, 108]);
});

describe("lottery tickets in one run", () => {
  const settings = { rounds: 3, share: 0.25, rewind: 0.2 };
  const length = steps / 4;

  test("survivors go back to where they were early on, the others to 0, a share of them every round", async () => {
    const training = await begin("lottery", settings);
    const copy = () => new Map(Array.from(training.weights, ([name, values]) => [name, values.slice()]));
    let early = copy();
    let ones = { a: 96, b: 144, c: 48 };
    for (let step = 0; step < steps; step++) {
      if (step === 0.2 * length) early = copy();
      await training.advance(threeLayerBatch(step));
      if ((step + 1) % length !== 0 || step + 1 === steps) continue;
      const drop = (n: number, share: number) => n - Math.round(share * n);
      ones = { a: drop(ones.a, 0.25), b: drop(ones.b, 0.25), c: drop(ones.c, 0.125) };
      for (const [name, mask] of training.run.masks!) {
        expect(mask.length - zeros(mask)).toBe(ones[name as keyof typeof ones]);
        const weights = training.weights.get(name)!;
        for (let i = 0; i < mask.length; i++) expect(weights[i]).toBe(mask[i] ? early.get(name)![i] : 0);
      }
    }
    expect(training.run.metrics!().round).toBe(3);
    expect(zeros(training.finish().get("b")!)).toBe(144 - ones.b);
  });

  test("a round is the training of a fixed mask from the early weights, with fresh moments", async () => {
    const training = await begin("lottery", settings);
    for (let step = 0; step < 3 * length; step++) await training.advance(threeLayerBatch(step));
    const { method } = await trainMethods["fixed-mask"]();
    const ticket = new Training({
      objective: threeLayers(),
      weights: new Map(Array.from(training.weights, ([name, values]) => [name, values.slice()])),
      optimizer: { rate: constant(0.01) },
      steps: length,
      seed: 2,
      method: (context) => method.start(context, method.options.parse({})),
    });
    for (let step = 3 * length; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      await ticket.advance(threeLayerBatch(step));
    }
    for (const [name, values] of ticket.weights) expect(training.weights.get(name)).toEqual(values);
  });

  test("every training has the whole schedule of rates", async () => {
    const training = await begin("lottery", { rounds: 1 }, cosine({ peak: 1e-3, warmup: 10, steps }));
    const rates: number[] = [];
    for (let step = 0; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      rates.push(training.run.metrics!().rate);
    }
    expect(rates.slice(30)).toEqual(rates.slice(0, 30));
    expect(Math.max(...rates)).toBeGreaterThan(20 * rates[29]);
  });

  test("too few steps are refused", async () => {
    await expect(begin("lottery", { rounds: 60 })).rejects.toThrow(/60 steps are too few for 61 trainings/);
  });
});

describe("dynamic sparse training", () => {
  test("ERK densities fall with size and add up to the budget", () => {
    const matrix = (name: string, rows: number, cols: number) => ({
      name,
      shape: [rows, cols],
      layer: "0",
      role: "inner" as const,
    });
    const matrices = [matrix("small", 10, 20), matrix("wide", 300, 784), matrix("middle", 100, 300)];
    for (const density of [0.02, 0.1, 0.5, 1]) {
      const counts = erkCounts(matrices, density);
      const total = [...counts.values()].reduce((a, b) => a + b);
      expect(Math.abs(total - density * (200 + 235_200 + 30_000))).toBeLessThanOrEqual(1);
      expect(counts.get("small")! / 200).toBeGreaterThanOrEqual(counts.get("wide")! / 235_200);
      for (const { name, shape } of matrices) expect(counts.get(name)).toBeLessThanOrEqual(shape[0] * shape[1]);
    }
  });

  test("an update drops the smallest weights and grows the largest gradients", () => {
    const mask = Uint8Array.of(1, 1, 1, 0, 0, 0);
    const weight = Float32Array.of(0.5, -0.1, 0.3, 0, 0, 0);
    const gradient = Float32Array.of(0, 0.2, 0, -0.9, 0.1, 0.5);
    rewire(mask, weight, gradient, { drop: 1, grow: 1 }, "gradient", new Random(1));
    expect([...mask]).toEqual([1, 0, 1, 1, 0, 0]);
  });

  test("a connection may be dropped and grown again in one update", () => {
    const mask = Uint8Array.of(1, 1, 0);
    rewire(
      mask,
      Float32Array.of(0.5, 0.1, 0),
      Float32Array.of(0, 3, 1),
      { drop: 1, grow: 1 },
      "gradient",
      new Random(1),
    );
    expect([...mask]).toEqual([1, 1, 0]);
  });

  test.each(["set", "rigl"])(
    "%s keeps its number of connections; new ones start at 0 with fresh moments",
    async (id) => {
      const training = await begin(id, { density: 0.3, interval: 5, until: 1 });
      const ones = (mask: Uint8Array) => mask.length - zeros(mask);
      const counts = new Map(Array.from(training.run.masks!, ([name, mask]) => [name, ones(mask)]));
      let moved = 0;
      for (let step = 0; step < 31; step++) {
        const before = training.run.masks!.get("b")!.slice();
        await training.advance(threeLayerBatch(step));
        const weights = training.weights.get("b")!;
        const mask = training.run.masks!.get("b")!;
        for (const [name, m] of training.run.masks!) expect(ones(m)).toBe(counts.get(name));
        for (let i = 0; i < mask.length; i++) {
          if (mask[i] === 0) expect(weights[i]).toBe(0);
          if (mask[i] === 0 || before[i] === 1) continue;
          moved++;
          expect(weights[i]).toBe(0);
          for (const array of arraysNamed(training.state.optimizer as State, "b")) expect(array[i]).toBe(0);
        }
      }
      expect(moved).toBeGreaterThan(10);
    },
  );

  test("grow-then-prune has the density of its schedule after every update", async () => {
    const settings = {
      initial: 0.2,
      peak: 0.7,
      final: 0.1,
      growUntil: 0.25,
      pruneFrom: 0.4,
      pruneUntil: 0.75,
      interval: 3,
    };
    const training = await begin("grow-prune", settings);
    const { method } = await trainMethods["grow-prune"]();
    const parsed = method.options.parse(settings) as Parameters<typeof growPruneDensity>[0];
    for (let step = 0; step < steps; step++) {
      await training.advance(threeLayerBatch(step));
      if (step % 3 !== 0 || step === 0 || step / steps > 0.75) continue;
      const mask = training.run.masks!.get("b")!;
      expect(mask.length - zeros(mask)).toBe(Math.round(144 * growPruneDensity(parsed, step / steps)));
    }
    expect(training.run.metrics!().density).toBeCloseTo(0.1, 1);
  });
});

function arraysNamed(state: State, name: string): ArrayLike<number>[] {
  return Object.entries(state).flatMap(([key, value]) => {
    if (isStateArray(value)) return key === name ? [value] : [];
    return typeof value === "object" ? arraysNamed(value, name) : [];
  });
}

test("L1 with a wanted sparsity steers λ there", async () => {
  const training = await begin("l1", { lambda: 1e-4, sparsity: 0.5, factor: 1.2 });
  const sparsities: number[] = [];
  for (let step = 0; step < 200; step++) {
    await training.advance(threeLayerBatch(step));
    sparsities.push(training.run.metrics!().sparsity);
  }
  const late = sparsities.slice(-40).reduce((a, b) => a + b) / 40;
  expect(late).toBeGreaterThan(0.4);
  expect(late).toBeLessThan(0.6);
});
