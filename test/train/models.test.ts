import { jit, numpy as np } from "@jax-js/jax";
import { beforeAll, describe, expect, test } from "vitest";
import { type MixtureStep, type ModelSpec, type RouterSpec, readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { type Checkpoint, openCheckpoint } from "../../src/io/index.js";
import { directoryFiles } from "../../src/io/index.node.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { largestInputs } from "../../src/train/engine/layers.js";
import { add, multiply, sum, type Traced } from "../../src/train/engine/ops.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { readWeights } from "../../src/train/languageModel.js";
import type { Distillation } from "../../src/train/models/distillation.js";
import { divergences, meanOverKnown } from "../../src/train/models/divergence.js";
import { initialMlp, mlp } from "../../src/train/models/mlp.js";
import { modelParameters } from "../../src/train/models/parameters.js";
import type { RouterOptions } from "../../src/train/models/routerOptions.js";
import { biasControl, sparsityControl } from "../../src/train/models/routers.js";
import type { Batch } from "../../src/train/objective.js";
import { type Units, unitSizes } from "../../src/train/selection/groups.js";
import { unitsOf } from "../../src/train/selection/patterns.js";
import { TracedPass } from "../../src/train/trace/pass.js";
import { traceSteps } from "../../src/train/trace/steps.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { path } from "../golden/golden.js";

beforeAll(() => startEngine("wasm"));

async function withGolden<T>(
  name: string,
  use: (checkpoint: Checkpoint, batch: Batch, nll: number) => Promise<T>,
): Promise<T> {
  const directory = path(`arch/${name}`);
  const checkpoint = await openCheckpoint(directoryFiles(directory));
  try {
    const golden = (await checkpoint.readJson("golden.json")) as { input_ids: number[]; nll: number[] };
    const n = golden.nll.length;
    const batch = {
      tokens: { shape: [n], values: Int32Array.from(golden.input_ids.slice(0, n)) },
      label: { shape: [n], values: Int32Array.from(golden.input_ids.slice(1)) },
    };
    return await use(checkpoint, batch, golden.nll.reduce((a, b) => a + b) / n);
  } finally {
    await checkpoint.close();
  }
}

const specOf = ({ config }: Checkpoint): ModelSpec => readModelSpec(config, "config.json");
const parametersOf = (checkpoint: Checkpoint) => modelParameters(specOf(checkpoint), checkpoint.tensors);

test("a pair of low rank, and a pair with a remainder, are the matrix that they stand for", async () => {
  await withGolden("llama", async (checkpoint, batch, nll) => {
    const name = "model.layers.0.mlp.up_proj";
    const whole = [...checkpoint.tensors.values()];
    const [rows, cols] = checkpoint.tensors.get(`${name}.weight`)!.shape;
    const weights = await readWeights(checkpoint, parametersOf(checkpoint));
    const own = weights.get(`${name}.weight`)!;
    // W = W · I, of which a remainder may hold a part.
    const identity = Float32Array.from({ length: cols * cols }, (_, i) => (i % (cols + 1) === 0 ? 1 : 0));
    const pair = [
      { name: `${name}.low_rank.left`, shape: [rows, cols] },
      { name: `${name}.low_rank.right`, shape: [cols, cols] },
    ];
    for (const remainder of [0, 0.25]) {
      const tensors = [...whole.filter((tensor) => remainder > 0 || tensor.name !== `${name}.weight`), ...pair];
      const split = new Map(weights)
        .set(pair[0].name, own.map((v: number) => v * (1 - remainder)) as Float32Array)
        .set(pair[1].name, identity)
        .set(`${name}.weight`, own.map((v: number) => v * remainder) as Float32Array);
      const parameters = modelParameters(
        specOf(checkpoint),
        new Map(tensors.map(({ name, shape }) => [name, { name, shape, dtype: "F32" }])),
      );
      using objective = tracedObjective(traceModel(specOf(checkpoint), parameters, batch.label.shape[0]));
      const { loss, gradients } = await objective.lossAndGradients(split, batch);
      expect(loss).toBeCloseTo(nll, 4);
      expect(gradients.get(pair[0].name)!.some((g: number) => g !== 0)).toBe(true);
    }
  });
});

test("two sequences in a batch do not see each other", async () => {
  await withGolden("llama", async (checkpoint) => {
    const parameters = parametersOf(checkpoint);
    using objective = tracedObjective(traceModel(specOf(checkpoint), parameters, 6));
    const weights = await readWeights(checkpoint, parameters);
    const random = new Random(1);
    const ids = Int32Array.from({ length: 14 }, () => random.integer(500));
    const batchOf = (...starts: number[]): Batch => ({
      tokens: {
        shape: [6 * starts.length],
        values: Int32Array.from(starts.flatMap((s) => [...ids.subarray(s, s + 6)])),
      },
      label: {
        shape: [6 * starts.length],
        values: Int32Array.from(starts.flatMap((s) => [...ids.subarray(s + 1, s + 7)])),
      },
    });
    const [a, b] = [await objective.loss(weights, batchOf(0)), await objective.loss(weights, batchOf(7))];
    expect(await objective.loss(weights, batchOf(0, 7))).toBeCloseTo((a + b) / 2, 5);
  });
});

/** A traced function on plain arrays. */
async function evaluate<K extends string>(
  inputs: Record<string, [values: Float32Array, shape: number[]]>,
  traced: (arrays: Record<string, Traced>) => Record<K, Traced>,
): Promise<Record<K, Float32Array>> {
  const compiled = jit(traced);
  const arrays = Object.entries(inputs).map(([name, [values, shape]]) => [
    name,
    np.array(values as Float32Array<ArrayBuffer>, { shape }),
  ]);
  const out = compiled(Object.fromEntries(arrays));
  const entries = Object.entries(out as Record<string, Traced>).map(async ([name, array]) => [
    name,
    await array.data(),
  ]);
  compiled.dispose();
  return Object.fromEntries(await Promise.all(entries));
}

const normals = (random: Random, length: number) => Float32Array.from({ length }, () => random.normal());

describe("Q-Sparse inputs", () => {
  const [rows, width] = [5, 16];
  const x = normals(new Random(3), rows * width);
  const run = (values: Float32Array, density: number) =>
    evaluate({ x: [values, [rows, width]] }, (a) => ({ y: largestInputs(a.x, density) }));

  test("K of them survive, the largest, and the row keeps its length", async () => {
    const { y } = await run(x, 0.25);
    for (let r = 0; r < rows; r++) {
      const row = Array.from(x.subarray(r * width, (r + 1) * width));
      const out = Array.from(y.subarray(r * width, (r + 1) * width));
      const largest = row.map(Math.abs).sort((a, b) => b - a)[3];
      for (let i = 0; i < width; i++) expect(out[i] !== 0).toBe(Math.abs(row[i]) >= largest);
      expect(Math.hypot(...out)).toBeCloseTo(Math.hypot(...row), 4);
    }
  });

  test("with all of them nothing changes", async () => {
    expect((await run(x, 1)).y).toEqual(x);
  });

  test("a decoder that keeps all inputs is the dense one; with fewer its loss differs and gradients reach every weight", async () => {
    await withGolden("llama", async (checkpoint, batch) => {
      const parameters = parametersOf(checkpoint);
      const weights = await readWeights(checkpoint, parameters);
      const run = async (inputDensity?: number) => {
        using objective = tracedObjective(
          traceModel(specOf(checkpoint), parameters, batch.label.shape[0], { inputDensity }),
        );
        return objective.lossAndGradients(weights, batch);
      };
      const [dense, all, half] = [await run(), await run(1), await run(0.5)];
      expect(all.loss).toBe(dense.loss);
      for (const [name, g] of dense.gradients) {
        for (let i = 0; i < g.length; i += 97) expect(all.gradients.get(name)![i]).toBeCloseTo(g[i], 6);
      }
      expect(Math.abs(half.loss - dense.loss)).toBeGreaterThan(1e-3);
      for (const g of half.gradients.values()) expect(g.some((v: number) => v !== 0)).toBe(true);
    });
  });
});

describe("units that the matrices of a decoder share", () => {
  const raw = {
    ...{ model_type: "mixtral", vocab_size: 16, hidden_size: 16, intermediate_size: 12, num_hidden_layers: 2 },
    ...{ num_attention_heads: 4, num_key_value_heads: 2, num_local_experts: 2 },
  };
  const unitsOfConfig = async (fields: object, type: "neurons" | "heads") => {
    const own = readModelSpec({ ...raw, ...fields }, "config.json");
    return unitsOf(modelParameters(own), { type, sparsity: 0.5 });
  };
  const names = (units: Units) => units.members.map(({ name }) => name.replace(/^model\.layers\./, ""));

  test("neurons of an MLP are rows of gate and up and columns of down", async () => {
    const [first, second, ...more] = await unitsOfConfig({ model_type: "llama" }, "neurons");
    expect(more).toEqual([]);
    expect(names(first)).toEqual(["0.mlp.gate_proj.weight", "0.mlp.up_proj.weight", "0.mlp.down_proj.weight"]);
    expect(second.count).toBe(12);
    // Every neuron has a row of 16 twice and a column of 16.
    expect([...unitSizes(first)]).toEqual(Array(12).fill(48));
  });

  test("every expert has neurons of its own", async () => {
    const sets = await unitsOfConfig({}, "neurons");
    expect(sets).toHaveLength(2 * 2);
    expect(names(sets[1])).toEqual(["w1", "w3", "w2"].map((w) => `0.block_sparse_moe.experts.1.${w}.weight`));
    for (const units of sets) expect([...unitSizes(units)]).toEqual(Array(12).fill(48));
  });

  test("a key and value head goes with the query heads that read it", async () => {
    const [first] = await unitsOfConfig({}, "heads");
    expect(first.count).toBe(2);
    // Two query heads, a key head, a value head of 4 rows each, and 8 columns of the output map.
    expect([...unitSizes(first)]).toEqual(Array(2).fill((8 + 4 + 4 + 8) * 16));
  });
});

describe("a teacher", () => {
  const [rows, classes] = [4, 6];
  const random = new Random(9);
  const [student, teacher] = [normals(random, rows * classes), normals(random, rows * classes)];
  const softmaxOf = (row: number[]) => {
    const e = row.map(Math.exp);
    const total = e.reduce((a, b) => a + b);
    return e.map((v) => v / total);
  };

  const kl = (p: number[], q: number[]) => p.reduce((sum, v, i) => sum + v * Math.log(v / q[i]), 0);
  const mean = (row: number[]) => row.reduce((a, b) => a + b) / row.length;
  test.each([
    ["kl", 1, (p: number[], q: number[]) => kl(p, q)],
    ["kl", 4, (p: number[], q: number[]) => 16 * kl(p, q)],
    ["reverse-kl", 2, (p: number[], q: number[]) => 4 * kl(q, p)],
    // At 1, the logarithms of probabilities are logits up to what is the same for all.
    [
      "logits",
      1,
      (p: number[], q: number[]) => {
        const [a, b] = [p, q].map((row) => row.map(Math.log));
        return mean(a.map((v, i) => (v - mean(a) - (b[i] - mean(b))) ** 2)) / 2;
      },
    ],
  ] as const)(
    "the divergence %s at temperature %i is what it is called, and 0 from oneself",
    async (id, temperature, ofRow) => {
      const of = (a: Float32Array, b: Float32Array) =>
        evaluate({ a: [a, [rows, classes]], b: [b, [rows, classes]] }, (x) => ({
          y: meanOverKnown(divergences[id](x.a, x.b, temperature)),
        }));
      let expected = 0;
      for (let r = 0; r < rows; r++) {
        const row = (values: Float32Array) =>
          softmaxOf(Array.from(values.subarray(r * classes, (r + 1) * classes), (v) => v / temperature));
        const [q, p] = [row(student), row(teacher)];
        expected += ofRow(p, q) / rows;
      }
      expect((await of(student, teacher)).y[0]).toBeCloseTo(expected, 4);
      expect(Math.abs((await of(student, student)).y[0])).toBeLessThan(1e-6);
    },
  );

  test("rows whose label is below 0 are not learnt from a teacher", async () => {
    const labels = { label: Int32Array.of(-1, 3, -1, 0), none: new Int32Array(4).fill(-1) };
    using objective = tracedObjective({
      parameters: [],
      predict: (_, { a, label }) => meanOverKnown(a, label),
      loss: (_, { a }) => ({ loss: a }),
    });
    const a = { shape: [4], values: Float32Array.of(100, 1, 100, 5) };
    const of = async (values: Int32Array) =>
      (await objective.predict(new Map(), { a, label: { shape: [4], values } }))[0];
    expect([await of(labels.label), await of(labels.none)]).toEqual([3, 0]);
  });

  test("a share of 0 is the text alone; a teacher that is the student itself teaches nothing", async () => {
    await withGolden("llama", async (checkpoint, batch) => {
      const parameters = parametersOf(checkpoint);
      const weights = await readWeights(checkpoint, parameters);
      const of = (distillation?: Distillation) =>
        tracedObjective(traceModel(specOf(checkpoint), parameters, batch.label.shape[0], { distillation }));
      using plain = of();
      const logits = await plain.predict(weights, batch);
      const taught = { ...batch, teacher: { shape: [logits.length / 512, 512], values: logits } };
      const alone = await plain.lossAndGradients(weights, batch);
      using none = of({ share: 0, temperature: 1 });
      const nothing = await none.lossAndGradients(weights, taught);
      expect(nothing.loss).toBeCloseTo(alone.loss, 5);
      using all = of({ share: 1, temperature: 2 });
      const { loss, gradients, measured } = await all.lossAndGradients(weights, taught);
      expect(Math.abs(loss)).toBeLessThan(1e-5);
      expect(measured.get("prediction")![0]).toBeCloseTo(alone.loss, 5);
      for (const [name, g] of alone.gradients) {
        for (let i = 0; i < g.length; i += 211) {
          expect(nothing.gradients.get(name)![i]).toBeCloseTo(g[i], 5);
          expect(Math.abs(gradients.get(name)![i])).toBeLessThan(1e-5);
        }
      }
    });
  });
});

describe("mixtures of experts", () => {
  const [tokens, hidden, inner, experts] = [7, 6, 5, 4];

  const choiceBias = Float32Array.of(0.1, -0.3, 0.2, 0);
  const at = "model.layers.0.block_sparse_moe";
  interface Tested extends RouterOptions {
    perToken: number;
    /** Default 4. */
    count?: number;
    /** What the description says besides. */
    described?: Partial<RouterSpec>;
  }
  function mixtureStep({ perToken, count = experts, described }: Tested): MixtureStep {
    const spec = readModelSpec(
      {
        ...{
          model_type: "mixtral",
          vocab_size: 8,
          hidden_size: hidden,
          intermediate_size: inner,
          num_hidden_layers: 1,
        },
        ...{ num_attention_heads: 1, num_key_value_heads: 1, num_local_experts: count, num_experts_per_tok: perToken },
      },
      "config.json",
    );
    const step = spec.blocks[0].steps.find((step) => step.do === "mixture")!;
    return { ...step, router: { ...step.router, ...described } };
  }

  function inputs(count = experts) {
    const random = new Random(5);
    return {
      x: [normals(random, tokens * hidden), [tokens, hidden]],
      [`${at}.gate.weight`]: [normals(random, count * hidden), [count, hidden]],
      "routerBias.0": [new Float32Array(count), [count]],
      routerSparsityWeight: [Float32Array.of(0.7), []],
      bias: [choiceBias, [experts]],
      ...Object.fromEntries(
        Array.from({ length: count }, (_, e) => [
          [`${at}.experts.${e}.w1.weight`, [normals(random, inner * hidden), [inner, hidden]]],
          [`${at}.experts.${e}.w2.weight`, [normals(random, inner * hidden), [hidden, inner]]],
          [`${at}.experts.${e}.w3.weight`, [normals(random, inner * hidden), [inner, hidden]]],
        ]).flat(),
      ),
    } as Record<string, [Float32Array, number[]]>;
  }
  const run = (tested: Tested, given = inputs(tested.count)) =>
    evaluate(given, ({ x, ...rest }) => {
      const pass = new TracedPass(rest, rest, 1, tokens, { router: tested });
      const buffers = new Map([
        ["normed", x],
        ["x", multiply(x, 0)],
      ]);
      traceSteps([mixtureStep(tested)], { pass, layer: 0, buffers });
      const [{ penalties, load }] = pass.mixtures;
      return { output: buffers.get("x")!, penalty: penalties.reduce(add, multiply(sum(x), 0)), load };
    });

  /** Each token through the experts it chose alone, in f64. */
  function dispatched(
    given: Record<string, [Float32Array, number[]]>,
    gatesOf: (logits: number[]) => number[],
  ): number[] {
    const [x] = given.x;
    const product = (name: string, v: number[], rows: number) =>
      Array.from({ length: rows }, (_, r) => v.reduce((sum, a, c) => sum + a * given[name][0][r * v.length + c], 0));
    const out: number[] = [];
    for (let t = 0; t < tokens; t++) {
      const v = Array.from(x.subarray(t * hidden, (t + 1) * hidden));
      const gates = gatesOf(product(`${at}.gate.weight`, v, experts));
      const sum = new Array<number>(hidden).fill(0);
      for (const [e, gate] of gates.entries()) {
        if (gate === 0) continue;
        const up = product(`${at}.experts.${e}.w3.weight`, v, inner);
        const h = product(`${at}.experts.${e}.w1.weight`, v, inner).map((a, i) => (a / (1 + Math.exp(-a))) * up[i]);
        for (const [i, y] of product(`${at}.experts.${e}.w2.weight`, h, hidden).entries()) sum[i] += gate * y;
      }
      out.push(...sum);
    }
    return out;
  }

  const topTwo = (scores: number[]) => {
    const order = scores.map((_, i) => i).sort((a, b) => scores[b] - scores[a]);
    return order.slice(0, 2);
  };
  const renormalised = (scores: number[], chosen: number[]) => {
    const total = chosen.reduce((sum, e) => sum + scores[e], 0);
    return scores.map((s, e) => (chosen.includes(e) ? s / total : 0));
  };

  test.each<[string, Tested, (logits: number[]) => number[]]>([
    ["softmax", { perToken: 2, routing: "softmax" }, (logits) => renormalised(logits.map(Math.exp), topTwo(logits))],
    [
      "softmax, gates as they are",
      { perToken: 2, routing: "softmax", normalised: false },
      (logits) => {
        const total = logits.reduce((sum, l) => sum + Math.exp(l), 0);
        return logits.map((l, e) => (topTwo(logits).includes(e) ? Math.exp(l) / total : 0));
      },
    ],
    [
      "sigmoid with a bias of 0",
      { perToken: 2, routing: "bias" },
      (logits) => {
        const scores = logits.map((l) => 1 / (1 + Math.exp(-l)));
        return renormalised(scores, topTwo(scores));
      },
    ],
    [
      "as described: sigmoid with a bias of choice, within groups, brought to sum 2.5",
      {
        perToken: 2,
        described: {
          score: "sigmoid",
          choiceBias: { tensor: "bias", shape: [experts] },
          groups: { count: 2, kept: 1 },
          normalise: true,
          factor: 2.5,
        },
      },
      (logits) => {
        const scores = logits.map((l) => 1 / (1 + Math.exp(-l)));
        const ranked = scores.map((score, e) => score + choiceBias[e]);
        const group = ranked[0] + ranked[1] > ranked[2] + ranked[3] ? [0, 1] : [2, 3];
        return renormalised(scores, group).map((gate) => 2.5 * gate);
      },
    ],
    [
      "as described: every chosen one alike",
      { perToken: 2, described: { uniform: true, normalise: false } },
      (logits) => logits.map((_, e) => (topTwo(logits).includes(e) ? 0.5 : 0)),
    ],
    [
      "as described: ReLU, one expert a token at most",
      { perToken: 1, described: { score: "relu", normalise: false } },
      (logits) => logits.map((l, e) => (topTwo(logits)[0] === e ? Math.max(l, 0) : 0)),
    ],
    [
      "as described: softmax over the chosen",
      { perToken: 2, described: { score: "softmax", choiceFirst: true, normalise: false } },
      (logits) => renormalised(logits.map(Math.exp), topTwo(logits)),
    ],
    ["ReLU", { perToken: 2, routing: "relu" }, (logits) => logits.map((l) => Math.max(l, 0))],
  ])("%s: evaluating every expert gives what dispatching gives", async (_name, moe, gatesOf) => {
    const given = inputs();
    const { output, load } = await run(moe, given);
    const expected = dispatched(given, gatesOf);
    for (const [i, y] of output.entries()) expect(y).toBeCloseTo(expected[i], 4);
    const total = load.reduce((a, b) => a + b);
    if (moe.routing !== "relu" && moe.described?.score !== "relu") expect(total).toBe(2 * tokens);
  });

  test("one expert is a plain MLP", async () => {
    const given = inputs(1);
    const { output } = await run({ count: 1, perToken: 1, routing: "softmax" }, given);
    const plain = await run({ count: 1, perToken: 1, routing: "bias" }, given);
    for (const [i, y] of output.entries()) expect(y).toBeCloseTo(plain.output[i], 5);
  });

  test("a bias changes who is chosen, not how much a choice counts", async () => {
    const given = inputs();
    const moe: Tested = { perToken: experts, routing: "bias" };
    const plain = await run(moe, given);
    const biased = await run(moe, { ...given, "routerBias.0": [Float32Array.of(3, -3, 1, 0), [experts]] });
    expect(biased.output).toEqual(plain.output);
    const one: Tested = { ...moe, perToken: 1 };
    const forced = await run(one, { ...given, "routerBias.0": [Float32Array.of(9, 0, 0, 0), [experts]] });
    expect([...forced.load]).toEqual([tokens, 0, 0, 0]);
  });

  test("the balance loss is its weight at perfect balance and larger when one expert has all", async () => {
    const given = inputs();
    const moe: Tested = { perToken: 1, routing: "softmax", balance: 0.01 };
    const even = {
      ...given,
      [`${at}.gate.weight`]: [new Float32Array(experts * hidden), [experts, hidden]] as [Float32Array, number[]],
    };
    // Equal scores: P is even, whoever is chosen.
    expect((await run(moe, even)).penalty[0]).toBeCloseTo(0.01, 6);
    const x = given.x[0].map(Math.abs);
    const skewed = Float32Array.from({ length: experts * hidden }, (_, i) => (i < hidden ? 5 : -5));
    const { penalty } = await run(moe, {
      ...given,
      x: [x, [tokens, hidden]],
      [`${at}.gate.weight`]: [skewed, [experts, hidden]],
    });
    expect(penalty[0]).toBeCloseTo(0.04, 4);
  });

  test("ReMoE's loss is λ·E/(k·T²)·Σₑ(Σₜ R)·nₑ", async () => {
    const given = inputs();
    const { penalty, load } = await run({ perToken: 2, routing: "relu" }, given);
    let expected = 0;
    for (let e = 0; e < experts; e++) {
      let total = 0;
      for (let t = 0; t < tokens; t++) {
        let logit = 0;
        for (let i = 0; i < hidden; i++)
          logit += given.x[0][t * hidden + i] * given[`${at}.gate.weight`][0][e * hidden + i];
        total += Math.max(0, logit);
      }
      expected += total * load[e];
    }
    expect(penalty[0]).toBeCloseTo((0.7 * experts * expected) / (2 * tokens * tokens), 3);
  });
});

describe("controls of routers", () => {
  test("biases even out the load of a router that does not learn", () => {
    const random = new Random(6);
    const [experts, tokens] = [4, 400];
    const scores = Array.from({ length: tokens }, () =>
      Array.from({ length: experts }, (_, e) => random.uniform() + 0.2 * e),
    );
    const control = biasControl({ layers: 1, experts, speed: 1e-3 });
    let load = new Float32Array(experts);
    for (let step = 0; step < 2000; step++) {
      const bias = control.arrays()["routerBias.0"].values;
      load = new Float32Array(experts);
      for (const row of scores) {
        const biased = row.map((s, e) => s + bias[e]);
        load[biased.indexOf(Math.max(...biased))]++;
      }
      control.observe(new Map([["load.0", load]]));
    }
    for (const count of load) expect(Math.abs(count - tokens / experts)).toBeLessThanOrEqual(3);
  });

  test("a speed of 0 never biases, a factor of 1 keeps λ", () => {
    const load = new Map([["load.0", Float32Array.of(9, 1)]]);
    const bias = biasControl({ layers: 1, experts: 2, speed: 0 });
    bias.observe(load);
    expect([...bias.arrays()["routerBias.0"].values]).toEqual([0, 0]);
    const sparsity = sparsityControl({
      layers: 1,
      experts: 2,
      expertsPerToken: 1,
      tokens: 10,
      factor: 1,
      initial: 0.5,
    });
    sparsity.observe(load);
    expect(sparsity.arrays().routerSparsityWeight.values[0]).toBe(0.5);
  });

  test("λ grows while too many experts work and falls while too few do", () => {
    const control = sparsityControl({ layers: 1, experts: 4, expertsPerToken: 1, tokens: 10, initial: 1e-3 });
    control.observe(new Map([["load.0", Float32Array.of(5, 5, 5, 5)]]));
    expect(control.sparsity).toBeCloseTo(0.5, 6);
    expect(control.arrays().routerSparsityWeight.values[0]).toBeCloseTo(1.2e-3, 8);
    control.observe(new Map([["load.0", Float32Array.of(1, 1, 1, 1)]]));
    expect(control.arrays().routerSparsityWeight.values[0]).toBeCloseTo(1e-3, 8);
  });
});

test("the engine's MLP agrees with one written out in f64", async () => {
  const widths = [3, 5, 2];
  const model = mlp({ widths, activation: "sigmoid", task: "classification" });
  const weights = initialMlp(model.parameters, new Random(7));
  using objective = tracedObjective(model);
  const x = normals(new Random(8), 12);
  const logits = await objective.predict(weights, {
    input: { shape: [4, 3], values: x },
    label: { shape: [4], values: new Int32Array(4) },
  });
  for (let r = 0; r < 4; r++) {
    let v = Array.from(x.subarray(r * 3, r * 3 + 3));
    for (const l of [0, 1]) {
      const [w, b] = [weights.get(`layers.${l}.weight`)!, weights.get(`layers.${l}.bias`)!];
      v = Array.from(b, (bias, o) => v.reduce((sum, a, i) => sum + a * w[o * v.length + i], bias));
      if (l === 0) v = v.map((a) => 1 / (1 + Math.exp(-a)));
    }
    for (const i of [0, 1]) expect(logits[r * 2 + i]).toBeCloseTo(v[i], 5);
  }
});
