import { beforeAll, describe, expect, test } from "vitest";
import { type ModelSpec, readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { causalMask } from "../../src/train/engine/attention.js";
import { startEngine } from "../../src/train/engine/engine.js";
import type { Traced } from "../../src/train/engine/ops.js";
import { type TracedArrays, tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { matchingOf, matchingSchema, modelParameters } from "../../src/train/index.js";
import { relationDivergence, stateDifference } from "../../src/train/models/matching.js";
import {
  featureName,
  initialProjections,
  projectionName,
  shownFor,
  spreadBlocks,
} from "../../src/train/models/matchingOptions.js";
import { initialWeights } from "../../src/train/models/parameters.js";
import { traceModel } from "../../src/train/trace/trace.js";

beforeAll(() => startEngine("wasm"));

const llama = (fields: Record<string, unknown> = {}): ModelSpec =>
  readModelSpec(
    {
      ...{ model_type: "llama", vocab_size: 13, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 2 },
      ...{
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 16,
        rms_norm_eps: 1e-5,
      },
      ...fields,
    },
    "config.json",
  );

const random = new Random(5);
const normals = (length: number) => Float32Array.from({ length }, () => random.normal());
const [sequences, window] = [2, 5];
const rows = sequences * window;
const ints = (length = rows) => ({
  shape: [length],
  values: Int32Array.from({ length }, () => random.integer(13)),
});
const batch = { tokens: ints(), label: ints() };

/** A number that the engine computes of arrays. */
async function scalar(arrays: Record<string, [Float32Array, number[]]>, of: (x: TracedArrays) => Traced) {
  using objective = tracedObjective({
    parameters: [],
    predict: (_, batch) => of(batch),
    loss: (_, batch) => ({ loss: of(batch) }),
  });
  const inputs = Object.entries(arrays).map(([name, [values, shape]]) => [name, { shape, values }] as const);
  return (await objective.predict(new Map(), Object.fromEntries(inputs)))[0];
}

describe("hidden states", () => {
  const [width, wide] = [3, 4];
  const [x, y, p] = [normals(rows * width), normals(rows * wide), normals(wide * width)];
  const seen = (r: number, c: number) => [0, 1, 2].reduce((sum, i) => sum + x[r * width + i] * p[c * width + i], 0);
  const squares = y.map((value, i) => (value - seen(Math.floor(i / wide), i % wide)) ** 2);
  const meanOf = (values: Float32Array) => values.reduce((a, b) => a + b) / values.length;

  test.each([
    [false, meanOf(squares)],
    [true, meanOf(squares) / meanOf(y.map((value) => value * value))],
  ])("mean squared difference through a matrix; relative: %s", async (relative, expected) => {
    const arrays = { x: [x, [rows, width]], y: [y, [rows, wide]], p: [p, [wide, width]] } as const;
    const found = await scalar(arrays as never, ({ x, y, p }) => stateDifference(x, y, p, relative));
    expect(found).toBeCloseTo(expected, 5);
  });
});

test("relations are KL between softmaxes of what a token sees, head by head, whatever the widths", async () => {
  const heads = 2;
  const widths = [4, 6];
  const [student, teacher] = widths.map((width) => normals(rows * width));
  const relation = (x: Float32Array, width: number, s: number, h: number, t: number) => {
    const size = width / heads;
    const of = (row: number) => x.subarray((s * window + row) * width + h * size).subarray(0, size);
    const scores = Array.from(
      { length: t + 1 },
      (_, u) => of(t).reduce((sum, value, i) => sum + value * of(u)[i], 0) / Math.sqrt(size),
    );
    const total = scores.reduce((sum, score) => sum + Math.exp(score), 0);
    return scores.map((score) => Math.exp(score) / total);
  };
  let expected = 0;
  for (let s = 0; s < sequences; s++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < window; t++) {
        const [q, p] = [student, teacher].map((x, i) => relation(x, widths[i], s, h, t));
        expected += p.reduce((sum, value, u) => sum + value * Math.log(value / q[u]), 0) / (rows * heads);
      }
  const found = await scalar(
    { x: [student, [rows, 4]], y: [teacher, [rows, 6]], mask: [causalMask(window), [window, window]] },
    ({ x, y, mask }) => relationDivergence(x, y, { sequences, heads, mask }),
  );
  expect(expected).toBeGreaterThan(0.01);
  expect(found).toBeCloseTo(expected, 5);
});

describe("which block follows which", () => {
  test.each([
    [3, 6, [1, 3, 5]],
    [6, 8, [0, 2, 3, 4, 6, 7]],
    [2, 2, [0, 1]],
    [4, 2, [0, 0, 1, 1]],
    [5, 1, [0, 0, 0, 0, 0]],
  ])("%i blocks beside %i", (student, teacher, expected) => {
    expect(spreadBlocks(student, teacher)).toEqual(expected.map((block, i) => [i, block]));
  });

  test.each<[string, object, RegExp]>([
    ["a block that is not there", { layers: [[0, 3]] }, /the teacher has no block 3 .* 3, from 0/],
    [
      "the same two twice",
      {
        layers: [
          [0, 1],
          [0, 1],
        ],
      },
      /twice/,
    ],
    ["heads that divide nothing", { relations: 1, relationHeads: 3 }, /queries of block 0 of the student are 16 wide/],
    ["nothing", { hidden: 0 }, /nothing is matched/],
  ])("%s is refused", (_, options, message) => {
    const teacher = llama({ num_hidden_layers: 3 });
    expect(() => matchingOf(matchingSchema.parse(options), llama(), teacher)).toThrow(message);
  });
});

const objectiveOf = (spec: ModelSpec, options: Parameters<typeof traceModel>[3]) =>
  tracedObjective(traceModel(spec, modelParameters(spec), window, options));

test("a model that is matched with itself learns what it would without, from the first block to the last", async () => {
  const spec = llama();
  const weights = initialWeights(modelParameters(spec), new Random(1), 0.3);
  const matching = matchingOf(matchingSchema.parse({ hidden: 1, relations: 1 }), spec, spec);
  expect(matching.layers).toEqual([
    [0, 0],
    [1, 1],
  ]);
  using alone = objectiveOf(spec, {});
  using model = objectiveOf(spec, { matching, shown: { logits: true, ...shownFor(matching) } });
  expect(model.parameters).toHaveLength(alone.parameters.length);
  const shown = await model.show!(weights, batch);
  expect(Object.keys(shown).sort()).toEqual(
    [
      "teacher",
      ...[0, 1].flatMap((block) => ["stream", "q", "k", "v"].map((kind) => `teacher.${kind}.${block}`)),
    ].sort(),
  );
  expect([...shown.teacher.values]).toEqual([...(await alone.predict(weights, batch))]);
  const [plain, matched] = [
    await alone.lossAndGradients(weights, batch),
    await model.lossAndGradients(weights, { ...batch, ...shown }),
  ];
  expect(Math.abs(matched.loss - plain.loss)).toBeLessThan(1e-6);
  for (const [name, gradient] of plain.gradients) {
    const own = matched.gradients.get(name)!;
    for (const [i, value] of gradient.entries()) expect(Math.abs(own[i] - value), name).toBeLessThan(1e-5);
  }
  // Another model is another matter.
  const moved = new Map(Array.from(weights, ([name, values]) => [name, values.map((v) => 1.1 * v)]));
  const apart = await model.lossAndGradients(moved, { ...batch, ...shown });
  expect(apart.loss).toBeGreaterThan((await alone.loss(moved, batch)) + 1e-3);
});

test("matched blocks share a weight: the mean over them counts, as often as the weight says", async () => {
  const spec = llama();
  const weights = initialWeights(modelParameters(spec), new Random(1), 0.3);
  const other = initialWeights(modelParameters(spec), new Random(8), 0.3);
  const shown = { logits: false, blocks: [0, 1], kinds: ["stream", "q", "k", "v"] } as const;
  using teacher = objectiveOf(spec, { shown });
  const taught = { ...batch, ...(await teacher.show!(other, batch)) };
  const added = async (options: object) => {
    using objective = objectiveOf(spec, { matching: matchingOf(matchingSchema.parse(options), spec, spec) });
    const { loss, measured } = await objective.lossAndGradients(weights, taught);
    return loss - measured.get("prediction")![0];
  };
  const [first, second] = [await added({ layers: [[0, 0]] }), await added({ layers: [[1, 1]] })];
  expect(first).toBeGreaterThan(0.1);
  expect(await added({ hidden: 3 })).toBeCloseTo((3 * (first + second)) / 2, 4);
  const related = await added({ hidden: 0, relations: 1, layers: [[0, 0]] });
  expect(related).toBeGreaterThan(1e-3);
  expect(await added({ hidden: 1, relations: 2, layers: [[0, 0]] })).toBeCloseTo(first + 2 * related, 4);
});

test("a wider teacher whose states are a matrix times the student's: that matrix is learnt", async () => {
  const [spec, teacher] = [llama(), llama({ hidden_size: 12 })];
  const weights = initialWeights(modelParameters(spec), new Random(2), 0.3);
  const matching = matchingOf(matchingSchema.parse({ hidden: 1, layers: [[0, 1]] }), spec, teacher);
  using shows = objectiveOf(spec, { shown: { logits: false, blocks: [0], kinds: ["stream"] } });
  using objective = objectiveOf(spec, { matching });
  const name = projectionName([0, 1]);
  expect(objective.parameters.at(-1)).toMatchObject({ name, shape: [12, 8], role: "dense" });
  const planted = normals(12 * 8);
  // More tokens than columns: there is no other such matrix.
  const many = 8 * rows;
  const windows = { tokens: ints(many), label: ints(many) };
  const { [featureName("stream", 0)]: states } = await shows.show!(weights, windows);
  const values = Float32Array.from({ length: many * 12 }, (_, i) => {
    const row = states.values.subarray(Math.floor(i / 12) * 8);
    return planted.subarray((i % 12) * 8, (i % 12) * 8 + 8).reduce((sum, p, j) => sum + p * row[j], 0);
  });
  const taught = { ...windows, [featureName("stream", 1)]: { shape: [many, 12], values } };
  const start = initialProjections(matching, 7);
  const slopeAt = async (projection: Float32Array) =>
    (await objective.lossAndGradients(new Map(weights).set(name, projection), taught)).gradients.get(name)!;
  const learnt = await conjugateGradients(slopeAt as never, start.get(name) as Float32Array, 12);
  const distance = Math.hypot(...planted.map((p, i) => p - learnt[i])) / Math.hypot(...planted);
  expect(distance).toBeLessThan(0.01);
  const { loss, measured } = await objective.lossAndGradients(new Map(weights).set(name, learnt), taught);
  expect(loss - measured.get("prediction")![0]).toBeLessThan(1e-5);
});

/** Where a quadratic function has its minimum. @param slopeAt its gradient, which is affine */
async function conjugateGradients(
  slopeAt: (x: Float32Array) => Promise<Float32Array>,
  start: Float32Array,
  rounds: number,
): Promise<Float32Array> {
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const zero = Float64Array.from(await slopeAt(new Float32Array(start.length)));
  const times = async (x: Float64Array) =>
    Float64Array.from(await slopeAt(Float32Array.from(x)), (value, i) => value - zero[i]);
  const x = Float64Array.from(start);
  let left = (await times(x)).map((value, i) => -zero[i] - value);
  let direction = left;
  for (let round = 0; round < rounds && dot(left, left) > 1e-18; round++) {
    const turned = await times(direction);
    const length = dot(left, left) / dot(direction, turned);
    for (let i = 0; i < x.length; i++) x[i] += length * direction[i];
    const next = left.map((value, i) => value - length * turned[i]);
    const share = dot(next, next) / dot(left, left);
    direction = direction.map((value, i) => next[i] + share * value);
    left = next;
  }
  return Float32Array.from(x);
}
