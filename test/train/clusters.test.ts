import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { grad, jit, numpy as np } from "@jax-js/jax";
import type { Step } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { multiply, sum, type Traced } from "../../src/train/engine/ops.js";
import { type ClusterOptions, clusterPlan } from "../../src/train/models/clusterOptions.js";
import { TracedPass } from "../../src/train/trace/pass.js";
import { stepTracers } from "../../src/train/trace/steps.js";
import { clusteredOracle, affinities, type Heads, type LayerInputs, logShares } from "./clusterOracle.js";

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

/** The layer as it is trained: [batch · positions, heads · width]. */
function layer({ options, causal, positions = 12 }: Setting, masks: boolean) {
  const step: Extract<Step, { do: "attend" }> = {
    ...{ do: "attend", q: "q", k: "k", v: "v", into: "y", heads, scale },
    ...{ kv: { heads, k: width, v: width }, sight: { kind: causal ? "causal" : "all" } },
  };
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
    stepTracers.attend!(step, { pass, layer: 0, buffers });
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
  for (let i = 0; i < expected.length; i++) expect(Math.abs(actual[i] - expected[i]), String(i)).toBeLessThan(tolerance);
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
