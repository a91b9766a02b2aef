import { describe, expect, test } from "vitest";
import { readModelSpec } from "../../src/arch/index.js";
import { median, NonFiniteError, ProblemsError, Random, UsageError } from "../../src/core/index.js";
import { addPair, combineAdapters, type LoraAdapter, type LoraPair } from "../../src/io/index.js";
import { adaptationsOf } from "../../src/model/index.js";
import { loraHub, minimise, modelParameters, readWeights, searches, type Values } from "../../src/train/index.js";
import { generationSize } from "../../src/train/search/cmaEs.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { randomAdapter } from "../support/adapter.js";

const bound = 1.5;

async function run(
  id: string,
  dimensions: number,
  evaluations: number,
  f: (x: Float64Array) => number,
  { seed = 1, limit = bound } = {},
) {
  const seen: Float64Array[] = [];
  const { search } = await searches[id]();
  const valueAt = async (x: Float64Array) => {
    seen.push(x);
    return f(x);
  };
  const options = { bound: limit, random: new Random(seed), evaluations };
  return { ...(await minimise(search, new Float64Array(dimensions), valueAt, options)), seen };
}

/** ½·xᵀMx − bᵀx for M = [[4, 1, 0], [1, 3, 0], [0, 0, 2]] and b = [1, 2, −1]. */
const quadratic = ([x, y, z]: Float64Array) => (4 * x * x + 2 * x * y + 3 * y * y + 2 * z * z) / 2 - x - 2 * y + z;
/** M⁻¹b by Cramer's rule: 4x + y = 1, x + 3y = 2, 2z = −1; the value there is −½·bᵀM⁻¹b. */
const lowest = { point: [1 / 11, 7 / 11, -1 / 2], value: -(1 / 11 + 14 / 11 + 1 / 2) / 2 };

describe.each([
  ["one-plus-one", 1e-4],
  ["cma", 1e-4],
  ["random", 0.1],
])("the search %s", (id, near) => {
  test("finds the minimum of a quadratic, within the bounds and the number of evaluations", async () => {
    const { point, value, seen } = await run(id, 3, 300, quadratic);
    expect(value - lowest.value).toBeGreaterThanOrEqual(-1e-12);
    expect(value - lowest.value).toBeLessThan(near);
    expect(value).toBe(quadratic(point));
    expect(seen.length).toBe(300);
    expect(seen.flatMap((x) => [...x]).every((x) => Math.abs(x) <= bound)).toBe(true);
    for (const [i, x] of lowest.point.entries()) expect(Math.abs(point[i] - x)).toBeLessThan(3 * Math.sqrt(near));
  });

  test("looks at the same points for the same seed, and never ends worse than it began", async () => {
    const [first, again, other] = await Promise.all([1, 1, 2].map((seed) => run(id, 3, 20, quadratic, { seed })));
    expect(first.seen).toEqual(again.seen);
    expect(first.seen).not.toEqual(other.seen);
    expect((await run(id, 4, 1, (x) => x[0])).value).toBe(0);
    // Wherever it goes from the best point there is, and where the loss is no number.
    const worse = await run(id, 2, 10, (x) => (x[0] === 0 ? -1 : Number.NaN));
    expect([...worse.point]).toEqual([0, 0]);
    await expect(run(id, 2, 3, () => Number.NaN)).rejects.toThrow(NonFiniteError);
  });
});

test("both strategies end at the edge where the minimum lies beyond it, and leave at 0 what only costs", async () => {
  for (const id of ["one-plus-one", "cma"]) {
    const edge = await run(id, 2, 200, ([x, y]) => (x - 5) ** 2 + y * y);
    expect(edge.point[0], id).toBeCloseTo(bound, 3);
    const sparse = await run(id, 2, 300, ([x, y]) => (x - 1) ** 2 + 0.05 * ((Math.abs(x) + Math.abs(y)) / 2));
    // The derivative 2·(x − 1) + 0.025 is 0 there.
    expect(sparse.point[0], id).toBeCloseTo(1 - 0.0125, 1);
    expect(Math.abs(sparse.point[1]), id).toBeLessThan(0.02);
  }
});

test("with 40 evaluations, as LoraHub has them, both strategies are far ahead of chance", async () => {
  const reached = async (id: string) => {
    const left = Array.from({ length: 20 }, async (_, seed) => {
      const random = new Random(1000 + seed);
      const axes = Array.from({ length: 5 }, () => ({ at: 2 * random.uniform() - 1, steep: 10 ** random.uniform() }));
      const f = (x: ArrayLike<number>) => axes.reduce((sum, { at, steep }, i) => sum + steep * (x[i] - at) ** 2, 0);
      return (await run(id, 5, 40, f, { seed })).value / f([0, 0, 0, 0, 0]);
    });
    return median(await Promise.all(left));
  };
  const chance = await reached("random");
  for (const id of ["one-plus-one", "cma"]) expect(await reached(id), id).toBeLessThan(0.5 * chance);
});

test("CMA-ES learns the shape of the function: a long valley, turned, is no harder than a bowl in the end", async () => {
  expect([1, 2, 5, 20].map(generationSize)).toEqual([4, 6, 8, 12]);
  // Axes of 1 and 1000 in the directions (1, 1) and (1, −1), the minimum at (0.3, −0.4).
  const valley = ([x, y]: Float64Array) => ((x - 0.3 + (y + 0.4)) / 2) ** 2 + 1e6 * ((x - 0.3 - (y + 0.4)) / 2) ** 2;
  const { value, point } = await run("cma", 2, 900, valley);
  expect(value).toBeLessThan(1e-10);
  expect(point[0]).toBeCloseTo(0.3, 3);
  expect((await run("one-plus-one", 2, 900, valley)).value).toBeGreaterThan(1e-4);
});

const pair = (a: number[], b: number[], rank: number, scale = 2): LoraPair => ({
  a: Float32Array.from(a),
  b: Float32Array.from(b),
  rank,
  rows: b.length / rank,
  cols: a.length / rank,
  scale,
});
const adapterOf = (modules: Record<string, LoraPair>): LoraAdapter => ({
  kind: "lora",
  modules: new Map(Object.entries(modules)),
});
const product = (one: LoraPair) => [...addPair(new Float32Array(one.rows * one.cols), one)];

describe("a combination of adapters", () => {
  const first = adapterOf({ q: pair([1, 2], [3, 4], 1) });
  const second = adapterOf({ q: pair([-1, 0.5], [2, 8], 1) });

  test("is the sum of the matrices, not of their products", () => {
    const combined = combineAdapters([first, second], [0.5, -1.5]).modules.get("q")!;
    expect([...combined.a]).toEqual([0.5 * 1 + 1.5, 0.5 * 2 - 1.5 * 0.5]);
    expect([...combined.b]).toEqual([0.5 * 3 - 1.5 * 2, 0.5 * 4 - 1.5 * 8]);
    expect(combined).toMatchObject({ rank: 1, rows: 2, cols: 2, scale: 2 });
  });

  test("with all weight on one is that one, whatever its scale", () => {
    for (const [i, one] of [first, second].entries()) {
      const alone = combineAdapters([first, second], i === 0 ? [1, 0] : [0, 1]).modules.get("q")!;
      expect(alone).toEqual(one.modules.get("q"));
    }
    const strong = adapterOf({ q: pair([-1, 0.5], [2, 8], 1, 32) });
    const alone = combineAdapters([first, strong], [0, 1]).modules.get("q")!;
    expect(alone.scale).toBe(2);
    expect(product(alone)).toEqual(product(strong.modules.get("q")!));
  });

  test.each<[string, LoraAdapter[], number[], RegExp, new (...args: never[]) => Error]>([
    ["no adapters", [], [], /0 weights for 0/, UsageError],
    ["a weight too few", [first, second], [1], /1 weights for 2/, UsageError],
    [
      "another rank",
      [first, adapterOf({ q: pair([1, 2, 3, 4], [1, 2, 3, 4], 2) })],
      [1, 1],
      /adapter 2, q: rank 2 for 2 × 2, the first one has rank 1 for 2 × 2/,
      ProblemsError,
    ],
    ["another shape", [first, adapterOf({ q: pair([1, 2, 3], [3, 4], 1) })], [1, 1], /rank 1 for 2 × 3/, ProblemsError],
    [
      "other modules",
      [first, second, adapterOf({ v: pair([1, 2], [3, 4], 1) })],
      [1, 1, 1],
      /adapter 3, q: it has no pair.*adapter 3, v: the first one has no pair/s,
      ProblemsError,
    ],
    [
      "ranks that differ from module to module",
      [adapterOf({ q: pair([1, 2], [3, 4], 1), v: pair([1, 2, 3, 4], [1, 2, 3, 4], 2) })],
      [1],
      /v: rank 2, another module has 1/,
      ProblemsError,
    ],
  ])("%s: refused", (_, adapters, weights, message, type) => {
    expect(() => combineAdapters(adapters, weights)).toThrow(message);
    expect(() => combineAdapters(adapters, weights)).toThrow(type);
  });
});

test("LoraHub finds the combination that a task was made of", async () => {
  const checkpoint = await MemoryCheckpoint.golden("llama");
  const spec = readModelSpec(checkpoint.config, "config.json");
  const weights = await readWeights(checkpoint, modelParameters(spec));
  const before = new Map(Array.from(weights, ([name, values]) => [name, values.slice()]));
  const adapters = [3, 4].map((seed) => {
    const random = new Random(seed);
    const { modules } = randomAdapter(checkpoint.config, ["q_proj", "v_proj"], 2) as LoraAdapter;
    const drawn = Array.from(modules, ([name, one]): [string, LoraPair] => {
      const [a, b] = [one.a, one.b].map((values) => values.map(() => 0.1 * random.normal()));
      return [name, { ...one, a, b }];
    });
    return { kind: "lora", modules: new Map(drawn) } as const;
  });
  const wanted = [0.8, -0.6];
  const target = new Map<string, Float32Array>();
  for (const [{ weight }, adaptation] of adaptationsOf(spec, combineAdapters(adapters, wanted))) {
    const own = weights.get(weight.tensor) as Float32Array;
    if (adaptation.kind === "lora") target.set(weight.tensor, addPair(own, adaptation.pair));
  }
  // As far as the weights are from those of the task.
  const lossOf = async (all: Values) => {
    let sum = 0;
    for (const [name, values] of target) {
      const own = all.get(name)!;
      for (let i = 0; i < own.length; i++) sum += (values[i] - own[i]) ** 2;
    }
    return sum;
  };
  const options = { bound, evaluations: 200, random: new Random(1) };
  const { search } = await searches.cma();
  const found = await loraHub(spec, weights, adapters, lossOf, { search, penalty: 0, ...options });
  expect(found.loss).toBeLessThan(1e-4 * found.lossBefore);
  // −w makes the same products.
  const sign = Math.sign(found.weights[0]);
  for (const [i, w] of wanted.entries()) expect(sign * found.weights[i]).toBeCloseTo(w, 2);
  expect(found.adapter).toEqual(combineAdapters(adapters, found.weights));
  for (const [name, values] of weights) expect(values).toEqual(before.get(name));
  // A penalty above all that could be won keeps the model as it is.
  const dear = await loraHub(spec, weights, adapters, lossOf, { search, penalty: 1e6, ...options, evaluations: 20 });
  expect([...dear.weights]).toEqual([0, 0]);
  expect(dear.loss).toBe(dear.lossBefore);
});
