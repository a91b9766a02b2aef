import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { grad, jit, makeJaxpr, numpy as np, tree } from "@jax-js/jax";
import type { Step } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { attention, causalMask } from "../../src/train/engine/attention.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { multiply, sum, type Traced } from "../../src/train/engine/ops.js";
import { type ClusterOptions, clusterPlan } from "../../src/train/models/clusterOptions.js";
import { centroidControl } from "../../src/train/models/clusterParameters.js";
import { TracedPass } from "../../src/train/trace/pass.js";
import { stepTracers } from "../../src/train/trace/steps.js";
import { affinities, clusteredOracle, type Heads, type LayerInputs, logShares } from "./clusterOracle.js";

beforeAll(() => startEngine("cpu"));

const batch = 2;
const heads = 3;
const width = 4;
const hidden = 5;
const scale = 0.7;

interface Setting {
  options: ClusterOptions;
  causal: boolean;
  positions?: number;
  /** Tokens of the second text; the rest is filled up. */
  tokens?: number;
}

const filled = (random: Random, ...[count, ...rest]: number[]): never[] =>
  Array.from({ length: count }, () => (rest.length === 0 ? random.normal() : filled(random, ...rest))) as never[];

const filledWith = (value: number, ...[count, ...rest]: number[]): unknown[] =>
  Array.from({ length: count }, () => (rest.length === 0 ? value : filledWith(value, ...rest)));

function inputsOf({ options, positions = 12, tokens = positions }: Setting, seed = 1): LayerInputs {
  const random = new Random(seed);
  const { clusters, localHeads } = clusterPlan(options, positions, heads);
  const unit = (x: number[]) => x.map((value) => value / Math.hypot(...x));
  return {
    q: filled(random, batch, heads, positions, width),
    k: filled(random, batch, heads, positions, width),
    v: filled(random, batch, heads, positions, width),
    x: filled(random, batch, positions, hidden),
    moving: (filled(random, heads - localHeads, clusters, width) as number[][][]).map((head) => head.map(unit)),
    centroids: filled(random, clusters, hidden),
    projection: filled(random, hidden, hidden),
    real: [Array(positions).fill(true), Array.from({ length: positions }, (_, i) => i < tokens)],
  };
}

const names = ["q", "k", "v", "x", "centroids", "projection"] as const;
type Arrays = Record<string, Traced>;

function arrayOf(values: unknown, dtype: "float64" | "float32" = "float64"): Traced {
  const shape: number[] = [];
  for (let at = values; Array.isArray(at); at = at[0]) shape.push(at.length);
  const flat = (values as unknown[]).flat(Number.POSITIVE_INFINITY) as number[];
  return np.array(dtype === "float64" ? Float64Array.from(flat) : Float32Array.from(flat), { shape });
}

const attendStep = (causal: boolean): Extract<Step, { do: "attend" }> => ({
  ...{ do: "attend", q: "q", k: "k", v: "v", into: "y", heads, scale },
  ...{ kv: { heads, k: width, v: width }, sight: { kind: causal ? "causal" : "all" } },
});

/** The layer as it is trained: [batch · positions, heads · width]. */
function layer({ options, causal, positions = 12 }: Setting, masks = false) {
  const rows = batch * positions;
  return (arrays: Arrays): Traced => {
    const weights = { "clusters.0.centroids": arrays.centroids, "clusters.0.projection": arrays.projection };
    const pass = new TracedPass(
      weights,
      { "centroids.0": arrays.moving },
      batch,
      positions,
      { clusters: options },
      undefined,
      masks ? arrays.real : undefined,
    );
    const flat = (x: Traced) => np.reshape(np.transpose(x.ref, [0, 2, 1, 3]), [rows, heads * width]);
    const buffers = new Map<string, Traced>([
      ...(["q", "k", "v"] as const).map((name) => [name, flat(arrays[name])] as const),
      ["x", np.reshape(arrays.x.ref, [rows, hidden])] as const,
    ]);
    stepTracers.attend!(attendStep(causal), { pass, layer: 0, buffers });
    return buffers.get("y")!;
  };
}

const upload = (inputs: LayerInputs) => ({
  ...Object.fromEntries([...names, "moving" as const].map((name) => [name, arrayOf(inputs[name])])),
  real: arrayOf(inputs.real.map((row) => row.map(Number))),
});

async function outputOf(setting: Setting, inputs: LayerInputs): Promise<Float64Array> {
  const run = jit(layer(setting, setting.tokens !== undefined));
  const values = (await run(upload(inputs)).data()) as Float64Array;
  run.dispose();
  return values;
}

/** [batch · positions, heads · width] */
const flatOf = (heads: Heads): number[] =>
  heads.flatMap((ofText) => ofText[0].flatMap((_, p) => ofText.flatMap((head) => head[p])));

const optionsOf = ({ options, causal, positions = 12 }: Setting) => ({
  plan: clusterPlan(options, positions, heads),
  causal,
  scale,
});

/** Nested arrays of numbers with a multiple of `direction` added, in the order in which they lie. */
function shifted<T>(values: T, direction: ArrayLike<number>, by: number): T {
  let at = 0;
  const walk = (value: unknown): unknown =>
    Array.isArray(value) ? value.map(walk) : (value as number) + by * direction[at++];
  return walk(values) as T;
}

const closeTo = (actual: ArrayLike<number>, expected: ArrayLike<number>, tolerance = 1e-7) => {
  expect(actual).toHaveLength(expected.length);
  for (let i = 0; i < expected.length; i++)
    expect(Math.abs(actual[i] - expected[i]), String(i)).toBeLessThan(tolerance);
};

const kinds = ["routing", "nearest", "clusterformer"] as const;
const settings: [string, Setting][] = kinds.flatMap((kind) =>
  [false, true].flatMap((causal) =>
    [false, true].flatMap((sharedKeys): [string, Setting][] => {
      const options = { kind, clusters: 3, localHeads: 1, sharedKeys };
      const name = `${kind}${causal ? ", causal" : ""}${sharedKeys ? ", shared keys" : ""}`;
      return [
        [name, { options, causal }],
        [`${name}, one text shorter`, { options, causal, tokens: 6 }],
      ];
    }),
  ),
);
settings.push([
  "clusterformer, neighbours",
  { options: { kind: "clusterformer", clusters: 4, neighbours: true }, causal: false, tokens: 10 },
]);

describe.each(settings)("%s", (_, setting) => {
  test("is full attention of which the mask is taken away, and its gradient is the central difference of that", async () => {
    const inputs = inputsOf(setting);
    closeTo(await outputOf(setting, inputs), flatOf(clusteredOracle(inputs, optionsOf(setting))));

    const random = new Random(9);
    const factors = Float64Array.from({ length: batch * 12 * heads * width }, () => random.normal());
    const run = layer(setting, setting.tokens !== undefined);
    const loss = (arrays: Arrays) =>
      sum(multiply(run(arrays), np.array(factors, { shape: [batch * 12, heads * width] })));
    const compiled = jit(grad(loss));
    const gradients = compiled(upload(inputs));
    const held = inputs.x.map((x, b) => logShares(affinities({ ...inputs, x, real: inputs.real[b] }, setting.causal)));
    const lossOf = (inputs: LayerInputs) =>
      flatOf(clusteredOracle(inputs, optionsOf(setting), held)).reduce((all, y, i) => all + y * factors[i], 0);
    for (const name of names) {
      const gradient = (await gradients[name].data()) as Float64Array;
      // Along the gradient and aside, so that a part that is wrong shows.
      const size = Math.max(1, Math.hypot(...gradient));
      const direction = gradient.map((g) => g / size + random.normal() / Math.sqrt(gradient.length));
      const slope = gradient.reduce((all, g, i) => all + g * direction[i], 0);
      const lossAt = (shift: number) => lossOf({ ...inputs, [name]: shifted(inputs[name], direction, shift) });
      const expected = (lossAt(1e-5) - lossAt(-1e-5)) / 2e-5;
      expect(Math.abs(slope - expected) / size, name).toBeLessThan(1e-6);
    }
    compiled.dispose();
  });
});

describe.each(kinds)("%s", (kind) => {
  test.each([false, true])("with one cluster, causal %s: full attention", async (causal) => {
    const setting = { options: { kind, clusters: 1, localHeads: 0 }, causal };
    const inputs = inputsOf(setting);
    const mask = causal ? np.array(Float64Array.from(causalMask(12)), { shape: [12, 12] }) : undefined;
    const [q, k, v] = [inputs.q, inputs.k, inputs.v].map((x) => np.transpose(arrayOf(x), [0, 2, 1, 3]));
    closeTo(await outputOf(setting, inputs), (await attention(q, k, v, { scale, mask }).data()) as Float64Array);
  });

  test("makes no array with a number for every pair of tokens", () => {
    const positions = 256;
    const largest = (options: ClusterOptions) => {
      const setting = { options, causal: true, positions };
      const { jaxpr } = makeJaxpr(layer(setting))(upload(inputsOf(setting)));
      const sizes = Array.from(String(jaxpr).matchAll(/\[([\d,]+)\]/g), ([, shape]) =>
        shape.split(",").reduce((all, side) => all * Number(side), 1),
      );
      return Math.max(...sizes) / (batch * heads * positions);
    };
    // Of 16 tokens each, with those before; what is sorted is four wide.
    expect(largest({ kind, clusters: 16, localHeads: 1 })).toBeLessThanOrEqual(40);
    expect(largest({ kind, clusters: 1, localHeads: 0 })).toBeGreaterThanOrEqual(256);
  });
});

test.each(["routing", "nearest"] as const)("%s: the order of centroids makes no difference", async (kind) => {
  const setting = { options: { kind, clusters: 4, localHeads: 1 }, causal: true };
  const inputs = inputsOf(setting);
  const turned = { ...inputs, moving: inputs.moving.map(([a, b, c, d]) => [c, a, d, b]) };
  closeTo(await outputOf(setting, turned), await outputOf(setting, inputs));
});

/** Whether what the first seven tokens give stays the same when those behind them are others. */
async function knowsTheFuture(kind: ClusterOptions["kind"], sharedKeys: boolean): Promise<boolean> {
  const setting = { options: { kind, clusters: 3, localHeads: 1, sharedKeys }, causal: true };
  const [inputs, other] = [inputsOf(setting), inputsOf(setting, 2)];
  const late = <T>(a: T[], b: T[]) => a.map((value, i) => (i < 7 ? value : b[i]));
  const ofHeads = (a: Heads, b: Heads) => a.map((text, i) => text.map((head, h) => late(head, b[i][h])));
  const changed: LayerInputs = {
    ...inputs,
    ...{ q: ofHeads(inputs.q, other.q), k: ofHeads(inputs.k, other.k), v: ofHeads(inputs.v, other.v) },
    x: inputs.x.map((text, i) => late(text, other.x[i])),
  };
  const early = (values: Float64Array) => [0, 1].flatMap((b) => [...values.subarray(b * 144, b * 144 + 84)]);
  const [before, after] = [await outputOf(setting, inputs), await outputOf(setting, changed)];
  expect(before).not.toEqual(after);
  return early(before).some((value, i) => value !== early(after)[i]);
}

test.each([
  ["nearest", false],
  ["clusterformer", false],
  // Who is among the tokens most like a centroid depends on all of them.
  ["routing", true],
] as const)("causal %s: earlier tokens know of later ones: %s", async (kind, knows) => {
  expect(await knowsTheFuture(kind, false)).toBe(knows);
  expect(await knowsTheFuture(kind, true)).toBe(knows);
});

test("ClusterFormer: tokens that are the same are in the same cluster", async () => {
  const setting = { options: { kind: "clusterformer", clusters: 2 } as const, causal: false };
  const identity = Array.from({ length: hidden }, (_, i) => Array.from({ length: hidden }, (_, j) => Number(i === j)));
  const inputs = inputsOf(setting);
  const token = (p: number) => identity[p % 3 === 0 || p === 5 || p === 10 ? 0 : 1];
  const same: LayerInputs = {
    ...inputs,
    q: inputs.q.map((text) => text.map((head) => head.map((row) => row.map(() => 0)))),
    x: inputs.x.map((text) => text.map((_, p) => token(p))),
    centroids: [identity[0], identity[1]],
    projection: identity,
  };
  const output = await outputOf(setting, same);
  // Without a query everything in a block counts alike, so that a block gives the mean of its values.
  const [first, second] = [0, 1].map((kind) => inputs.v[0][0].filter((_, p) => token(p) === identity[kind]));
  expect([first.length, second.length]).toEqual([6, 6]);
  const mean = (rows: number[][]) => rows[0].map((_, c) => rows.reduce((all, row) => all + row[c], 0) / rows.length);
  for (let p = 0; p < 12; p++) {
    closeTo(output.subarray(p * 12, p * 12 + 4), mean(token(p) === identity[0] ? first : second));
  }
});

describe("centroids that move", () => {
  const plan = clusterPlan({ kind: "nearest", clusters: 2, localHeads: 1, decay: 0.5, firstBlock: 1 }, 4, 2);
  const control = () => centroidControl(plan, { blocks: 2, hiddenSize: 4, heads: 2, width: 2 }, new Random(3));

  test("go toward the mean of their members, by a rising share, and stay of length 1", () => {
    const moving = control();
    const { "centroids.1": centroids, ...others } = moving.arrays();
    expect(others).toEqual({});
    expect(centroids.shape).toEqual([1, 2, 2]);
    const values = centroids.values as Float32Array;
    for (const c of [0, 2]) expect(Math.hypot(values[c], values[c + 1])).toBeCloseTo(1, 6);
    const before = [...values];
    const step = () =>
      moving.observe(
        new Map([
          ["memberSums.1", Float32Array.of(3, 0, 9, 9)],
          ["memberCounts.1", Float32Array.of(6, 0)],
        ]),
      );
    step();
    // A tenth of the old one, nine tenths of (3, 0) / 6.
    const expected = [0.1 * before[0] + 0.9 * 0.5, 0.1 * before[1]];
    const length = Math.hypot(...expected);
    closeTo(values, [expected[0] / length, expected[1] / length, before[2], before[3]], 1e-6);
    for (let i = 0; i < 40; i++) step();
    const then = [...values];
    step();
    const half = [0.5 * then[0] + 0.25, 0.5 * then[1]];
    closeTo(
      values.subarray(0, 2),
      half.map((x) => x / Math.hypot(...half)),
      1e-6,
    );
  });

  test("are told the sum of the unit queries and keys that are nearest, and how many", async () => {
    const setting = { options: { kind: "routing", clusters: 3, localHeads: 1 } as const, causal: false, tokens: 9 };
    const inputs = inputsOf(setting);
    const noted = jit((arrays: Arrays) => {
      const pass = new TracedPass(
        {},
        { "centroids.0": arrays.moving },
        batch,
        12,
        { clusters: setting.options },
        undefined,
        arrays.real,
      );
      const flat = (x: Traced) => np.reshape(np.transpose(x.ref, [0, 2, 1, 3]), [batch * 12, heads * width]);
      const buffers = new Map(["q", "k", "v"].map((name) => [name, flat(arrays[name])]));
      stepTracers.attend!(attendStep(false), { pass, layer: 0, buffers });
      return pass.measuredMembers as Record<string, Traced>;
    });
    const found = noted(upload(inputs));
    const sums = filledWith(0, heads - 1, 3, width) as number[][][];
    const counts = filledWith(0, heads - 1, 3) as number[][];
    for (const rows of [inputs.q, inputs.k]) {
      for (const [b, text] of rows.entries()) {
        for (const [h, head] of text.slice(1).entries()) {
          for (const [p, row] of head.entries()) {
            if (!inputs.real[b][p]) continue;
            const centred = row.map((x) => x - row.reduce((a, c) => a + c) / width);
            const direction = centred.map((x) => x / Math.hypot(...centred));
            const likeness = inputs.moving[h].map((m) => m.reduce((all, x, i) => all + x * direction[i], 0));
            const own = likeness.indexOf(Math.max(...likeness));
            counts[h][own]++;
            for (let i = 0; i < width; i++) sums[h][own][i] += direction[i];
          }
        }
      }
    }
    closeTo((await found["memberSums.0"].data()) as Float64Array, sums.flat(2));
    closeTo((await found["memberCounts.0"].data()) as Float64Array, counts.flat());
    noted.dispose();
  });
});

test("clusters ask what a token is, not where: they are formed before queries and keys are turned", async () => {
  const setting = { options: { kind: "nearest", clusters: 3, localHeads: 1 } as const, causal: true };
  const arrays = upload(inputsOf(setting));
  const turn = { do: "rotate", rope: { type: "default", theta: 10 }, of: ["q", "k"], every: width, first: 0 } as const;
  const membersOf = async (isTurned: boolean) => {
    const noted = jit((arrays: Arrays) => {
      const pass = new TracedPass({}, { "centroids.0": arrays.moving }, batch, 12, { clusters: setting.options });
      const flat = (x: Traced) => np.reshape(np.transpose(x.ref, [0, 2, 1, 3]), [batch * 12, heads * width]);
      const block = { pass, layer: 0, buffers: new Map(["q", "k", "v"].map((name) => [name, flat(arrays[name])])) };
      if (isTurned) stepTracers.rotate!({ ...turn, width, pairs: "halves" }, block);
      stepTracers.attend!(attendStep(true), block);
      return { sums: pass.measuredMembers["memberSums.0"], y: block.buffers.get("y")! };
    });
    const { sums, y } = noted(tree.ref(arrays));
    const found = { sums: (await sums.data()) as Float64Array, y: (await y.data()) as Float64Array };
    noted.dispose();
    return found;
  };
  const [plain, turned] = [await membersOf(false), await membersOf(true)];
  closeTo(turned.sums, plain.sums);
  expect(turned.y.some((value, i) => Math.abs(value - plain.y[i]) > 1e-3)).toBe(true);
});

test("what does not fit is refused", () => {
  const plan = (options: Partial<ClusterOptions>) => () => clusterPlan({ kind: "routing", ...options }, 12, 4);
  expect(plan({})()).toMatchObject({ clusters: 3, size: 4, localHeads: 2, decay: 0.999 });
  expect(clusterPlan({ kind: "clusterformer" }, 1024, 4)).toMatchObject({ clusters: 32, size: 32, localHeads: 0 });
  expect(plan({ clusters: 5 })).toThrow("5 clusters do not divide a window of 12 tokens; give a divisor of 12");
  expect(plan({ clusters: 0 })).toThrow("0 clusters");
  expect(plan({ localHeads: 5 })).toThrow("5 local heads of 4; give 0 to 4");
  expect(plan({ decay: 1.5 })).toThrow("give 0 to 1");
  const attend = (more: Partial<ReturnType<typeof attendStep>>, batchArrays = {}) => {
    const pass = new TracedPass({}, batchArrays, 1, 4, { clusters: { kind: "routing" } });
    const buffers = new Map(["q", "k", "v"].map((name) => [name, np.zeros([4, heads * width])]));
    return () => stepTracers.attend!({ ...attendStep(false), ...more }, { pass, layer: 0, buffers });
  };
  expect(attend({ softcap: 3 })).toThrow(
    "not defined for heads that share keys, for sinks, caps, windows and pruned contexts",
  );
  expect(attend({ sight: { kind: "window", window: 2 } })).toThrow("not defined");
  expect(attend({})).toThrow("the batch holds no centroids.0");
});
