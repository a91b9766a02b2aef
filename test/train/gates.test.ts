import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { readModelSpec, unitsOf } from "../../src/arch/index.js";
import { parseRecipe } from "../../src/compress/index.js";
import { Random } from "../../src/core/index.js";
import { compressionOf, openCheckpoint, readJsonFile } from "../../src/io/index.js";
import { directoryFiles, directorySinks } from "../../src/io/index.node.js";
import { compressToDirectory, trainToDirectory } from "../../src/jobs/index.js";
import { describeDecoder } from "../../src/model/index.js";
import { gatedGroups, keepWithin } from "../../src/train/gates/gatedUnits.js";
import { logitFor, meanGate, openProbability, sampleGate } from "../../src/train/gates/hardConcrete.js";
import { initialWeights, modelParameters, writeWeights } from "../../src/train/index.js";
import { randomFor } from "../../src/train/internal.js";
import { trainMethods } from "../../src/train/methods/index.js";
import { constant } from "../../src/train/optimizers/schedule.js";
import type { State } from "../../src/train/state.js";
import { Training } from "../../src/train/training.js";
import type { FloatArray } from "../../src/train/values.js";
import { logits, relativeDifference } from "../compress/support.js";
import { MemoryCheckpoint } from "../model/memoryCheckpoint.js";
import { smallConfig } from "./smallModel.js";
import { threeLayerBatch, threeLayers, threeLayerWeights } from "./threeLayers.js";

const places = [-4, -1.5, 0, 0.7, 3];
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

describe("hard concrete gates", () => {
  const random = new Random(3);
  const uniforms = Array.from({ length: 40_000 }, () => random.uniform());

  test.each(places)("a logit of %d: the probability of being open is the closed form, and what draws give", (a) => {
    const { probability } = openProbability(a);
    expect(probability).toBeCloseTo(sigmoid(a - (2 / 3) * Math.log(0.1 / 1.1)), 12);
    expect(logitFor(probability)).toBeCloseTo(a, 9);
    const drawn = uniforms.map((u) => sampleGate(a, u).gate);
    const share = drawn.filter((gate) => gate > 0).length / drawn.length;
    expect(Math.abs(share - probability)).toBeLessThan(0.01);
    expect(Math.abs(drawn.reduce((x, y) => x + y) / drawn.length - meanGate(a))).toBeLessThan(0.01);
  });

  test("derivatives are the central differences, given the noise", () => {
    const h = 1e-5;
    for (const a of places) {
      const slope = (openProbability(a + h).probability - openProbability(a - h).probability) / (2 * h);
      expect(openProbability(a).slope).toBeCloseTo(slope, 8);
      for (const u of [0.02, 0.3, 0.5, 0.8, 0.99]) {
        const difference = (sampleGate(a + h, u).gate - sampleGate(a - h, u).gate) / (2 * h);
        expect(sampleGate(a, u).slope).toBeCloseTo(difference, 7);
      }
    }
    expect(uniforms.some((u) => sampleGate(0, u).gate === 0)).toBe(true);
    expect(uniforms.some((u) => sampleGate(0, u).gate === 1)).toBe(true);
  });
});

const steps = 600;

async function begin(id: "l0" | "cofi", options: object = {}, seed = 2, weights = threeLayerWeights(1)) {
  const { method } = await trainMethods[id]();
  return new Training({
    objective: threeLayers(),
    weights,
    optimizer: { rate: constant(0.01) },
    steps,
    seed,
    method: (context) => method.start(context, method.options.parse(options)),
  });
}

const inDoubles = () =>
  new Map<string, FloatArray>(
    Array.from(threeLayerWeights(1), ([name, values]) => [name, Float64Array.from(values)] as const),
  );

/** Neurons: a row of `a` with a column of `b`, a row of `b` with a column of `c`. */
const costs = { first: 8 + 12, second: 12 + 4 };
const whole = 12 * (costs.first + costs.second);

describe.each(["l0", "cofi"] as const)("%s", (id) => {
  test.each([
    ["a target", { sparsity: 0.5, until: 0 }],
    ["a price", { lambda: 0.7 }],
  ])("the gradient of the logits with %s is the central difference, given the noise", async (_, options) => {
    const training = await begin(id, { ...options, open: 0.6 }, 4, inDoubles());
    const { run, weights, options: given } = training;
    const gates = run.state.gates as Record<string, Float64Array>;
    // Multipliers that are something.
    gates.multipliers?.set([0.3, 0.8]);
    const names = Object.keys(gates).filter((name) => name !== "multipliers");
    expect(names).toEqual(["neurons.first", "neurons.second", ...(id === "cofi" ? ["groups"] : [])]);
    const charged = async () => {
      run.refresh!(weights, 5);
      const loss = await given.objective.loss(run.effective!(weights), threeLayerBatch(5));
      const open = [costs.first, costs.second].reduce((sum, cost, g) => {
        const ofGroup = id === "cofi" ? sigmoid(gates.groups[g] - (2 / 3) * Math.log(0.1 / 1.1)) : 1;
        const own = gates[names[g]].reduce((all, a) => all + sigmoid(a - (2 / 3) * Math.log(0.1 / 1.1)), 0);
        return sum + cost * ofGroup * own;
      }, 0);
      if ("lambda" in options) return loss + (options.lambda as number) * (open / whole);
      const distance = 1 - open / whole - 0.5;
      return loss + gates.multipliers[0] * distance + gates.multipliers[1] * distance ** 2;
    };
    const h = 1e-5;
    const expected = new Map<string, number[]>();
    for (const name of names) {
      const differences: number[] = [];
      for (let i = 0; i < gates[name].length; i++) {
        const a = gates[name][i];
        gates[name][i] = a + h;
        const above = await charged();
        gates[name][i] = a - h;
        differences.push((above - (await charged())) / (2 * h));
        gates[name][i] = a;
      }
      expected.set(name, differences);
    }
    run.refresh!(weights, 5);
    const { gradients } = await given.objective.lossAndGradients(run.effective!(weights), threeLayerBatch(5));
    const dense = new Map(Array.from(gradients, ([name, g]) => [name, g.slice()]));
    const drawn = new Map(Array.from(run.effective!(weights), ([name, values]) => [name, values.slice()]));
    run.gradient!(gradients, weights, 5);
    // Adam's mean of one step is a tenth of the gradient.
    const { mean } = (run.state.optimizer as State)["0"] as Record<string, Record<string, Float64Array>>;
    for (const name of names)
      for (const [i, difference] of expected.get(name)!.entries())
        expect(mean[name][i] * 10, `${name} ${i}`).toBeCloseTo(difference, 7);
    // Of a weight behind a gate: that of what is seen, times the gate.
    for (const [i, w] of weights.get("c")!.entries())
      expect(gradients.get("c")![i]).toBeCloseTo((dense.get("c")![i] * drawn.get("c")![i]) / w, 9);
    expect(gradients.get("a")).toEqual(dense.get("a"));
  });

  test("what stays fits the budget, and nothing else would have had room; dropped units are zero in all matrices", async () => {
    const training = await begin(id, { sparsity: 0.5 });
    for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
    // Within two hundredths of the target once gates are fixed.
    expect(Math.abs(training.run.metrics!().expectedSparsity - 0.5)).toBeLessThan(0.02);
    const seen = new Map(Array.from(training.effective, ([name, values]) => [name, values.slice()]));
    const weights = training.finish();
    const columns = (name: string, width: number) =>
      Array.from({ length: width }, (_, c) => (weights.get(name)!.some((w, i) => i % width === c && w !== 0) ? 1 : 0));
    const rows = (name: string, width: number) =>
      Array.from({ length: 12 }, (_, r) =>
        weights
          .get(name)!
          .subarray(r * width, (r + 1) * width)
          .some((w) => w !== 0)
          ? 1
          : 0,
      );
    const kept = { first: columns("b", 12), second: columns("c", 12) };
    expect(rows("a", 8)).toEqual(kept.first);
    expect(rows("b", 12)).toEqual(kept.second);
    const count = (mask: number[]) => mask.reduce((a, b) => a + b, 0);
    const cost = count(kept.first) * costs.first + count(kept.second) * costs.second;
    expect(cost).toBeLessThanOrEqual(whole / 2);
    expect(cost).toBeGreaterThan(whole / 2 - costs.second);
    // What was run last is what is left.
    const batch = threeLayerBatch(7);
    const loss = await training.options.objective.loss(weights, batch);
    expect(loss).toBeCloseTo(await training.options.objective.loss(seen, batch), 10);
  });

  test("the same seed gives the same, another something else", async () => {
    const weightsAfter = async (seed: number) => {
      const training = await begin(id, {}, seed);
      for (let step = 0; step < 5; step++) await training.advance(threeLayerBatch(step));
      return Array.from(training.weights.get("b")!);
    };
    expect(await weightsAfter(2)).toEqual(await weightsAfter(2));
    expect(await weightsAfter(3)).not.toEqual(await weightsAfter(2));
  });
});

describe("what was trained is cut", () => {
  const scratch = mkdtempSync(join(tmpdir(), "rarefy-gates-"));
  const at = (name: string) => join(scratch, name);
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));
  const tokens = Uint32Array.from({ length: 200 }, (_, i) => (i * 37) % 300);

  async function train(method: string, methodOption: object) {
    smallConfig(at(method), { num_hidden_layers: 2, num_key_value_heads: 2 });
    const files = directoryFiles(at(method));
    const parameters = modelParameters(readModelSpec(await readJsonFile(files, "config.json"), "config.json"));
    const weights = initialWeights(parameters, randomFor(0, "weights"), 0.2);
    await writeWeights(directorySinks(at(method)), parameters, weights, () => "F32");
    await trainToDirectory(files, at(`${method}-trained`), {
      ...{ from: "weights", method, methodOption: { ...methodOption }, tokens: async () => tokens },
      ...{ steps: 4, batch: 2, window: 8, warmup: 0 },
    });
    return directoryFiles(at(`${method}-trained`));
  }
  const cut = async (method: string, stage: object) => {
    const recipe = parseRecipe({ version: 1, stages: [{ type: "maskUnits", ...stage }] }, "test");
    const output = at(`${method}-cut`);
    await compressToDirectory(directoryFiles(at(`${method}-trained`)), output, {
      recipe,
      store: "dense",
      dtype: "F32",
    });
    const checkpoint = await openCheckpoint(directoryFiles(output));
    return { checkpoint, masks: compressionOf(checkpoint.artifact!)!.unitMasks! };
  };

  test.each(["l0", "cofi"])("%s: units that are gone give the logits of units that are zero", async (method) => {
    const files = await train(method, { sparsity: 0.5, until: 0, rate: 1 });
    const { checkpoint, masks } = await cut(method, { method: "zeros" });
    const zeros = await openCheckpoint(files);
    expect(masks.macsShare).toBeLessThanOrEqual(0.5);
    expect(masks.macsShare).toBeGreaterThan(0.3);
    const [smaller, whole] = [await logits(checkpoint), await logits(zeros)];
    expect(relativeDifference(smaller, whole)).toBeLessThan(1e-5);
    const { spec } = await describeDecoder(checkpoint).then(({ config }) => config);
    expect(spec.blocks.flatMap((block) => unitsOf(block).map(({ count }) => count))).not.toEqual([2, 64, 2, 64]);
    await checkpoint.close();
    await zeros.close();
  });

  test("dynabert: the first units are the width, and all of them what was trained", async () => {
    const files = await train("dynabert", { widths: [1, 0.5] });
    const whole = await openCheckpoint(files);
    const { checkpoint, masks } = await cut("dynabert", { method: "first", macs: 0.5 });
    expect(masks).toMatchObject({ heads: [1, 1], neurons: [32, 32], macsShare: 0.5 });
    const zeroed = new MemoryCheckpoint(whole.config as Record<string, unknown>, new Map());
    for (const { name, shape } of whole.tensors.values()) {
      const values = await whole.readFloat32(name);
      const cols = shape.at(-1)!;
      if (/down_proj|o_proj/.test(name))
        for (let i = 0; i < values.length; i++) if (i % cols >= cols / 2) values[i] = 0;
      zeroed.set(name, shape, values);
    }
    expect(relativeDifference(await logits(checkpoint), await logits(zeroed))).toBeLessThan(1e-5);
    await checkpoint.close();
    await whole.close();
  });
});

test("a higher price leaves less", async () => {
  const left = async (lambda: number) => {
    const training = await begin("l0", { lambda });
    for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
    return training
      .finish()
      .get("c")!
      .filter((w) => w !== 0).length;
  };
  const [cheap, dear] = [await left(0.01), await left(20)];
  expect(dear).toBeLessThan(cheap);
});

test("sparsity and lambda exclude each other", async () => {
  await expect(begin("l0", { sparsity: 0.5, lambda: 1 })).rejects.toThrow("either sparsity or lambda");
});

describe("dynabert", () => {
  async function train(options: object = {}) {
    const { method } = await trainMethods.dynabert();
    const training = new Training({
      objective: threeLayers(),
      weights: threeLayerWeights(1),
      optimizer: { rate: constant(0.01) },
      steps: 60,
      seed: 2,
      method: (context) => method.start(context, method.options.parse(options)),
    });
    return training;
  }

  test("steps take the widths in turn once units are ranked, and drop the least important of every layer", async () => {
    const training = await train({ widths: [1, 0.5], rank: 0.1 });
    const { run, weights, options } = training;
    const importance = run.state.importances as Record<string, Float64Array>;
    const expected = new Float64Array(12);
    for (let step = 0; step < 6; step++) {
      // Σ over the rows of |Σ g·w| of the columns behind the neurons of the second layer.
      const { gradients } = await options.objective.lossAndGradients(weights, threeLayerBatch(step));
      for (let unit = 0; unit < 12; unit++) {
        let sum = 0;
        for (let r = 0; r < 4; r++) sum += gradients.get("c")![r * 12 + unit] * weights.get("c")![r * 12 + unit];
        expected[unit] += Math.abs(sum);
      }
      await training.advance(threeLayerBatch(step));
      expect(run.metrics!()).toEqual({ width: 1 });
    }
    for (const [unit, value] of importance["neurons.second"].entries()) expect(value).toBeCloseTo(expected[unit], 6);
    const order = Array.from(expected.keys()).sort((a, b) => expected[b] - expected[a]);
    run.refresh!(weights, 7);
    const seen = run.effective!(weights).get("c")!;
    for (const [place, unit] of order.entries())
      for (let r = 0; r < 4; r++) {
        const w = weights.get("c")![r * 12 + unit];
        expect(seen[r * 12 + unit]).toBeCloseTo(place < 6 ? w : 0, 12);
      }
    run.after!(weights, 7);
    expect(run.effective!(weights)).toBe(weights);
  });

  test("in the end the first units are the most important ones, and the whole model computes what it did", async () => {
    const training = await train();
    for (let step = 0; step < 60; step++) await training.advance(threeLayerBatch(step));
    const batch = threeLayerBatch(99, 40);
    const before = await training.options.objective.loss(training.weights, batch);
    // The first half of the neurons of the second layer, as the run itself masks them.
    training.run.refresh!(training.weights, 8);
    expect(training.run.metrics!()).toEqual({ width: 0.5 });
    const halves = await training.options.objective.loss(training.effective, batch);
    training.run.after!(training.weights, 8);
    const weights = training.finish();
    expect(await training.options.objective.loss(weights, batch)).toBeCloseTo(before, 6);
    for (const name of ["b", "c"]) {
      const values = weights.get(name)!;
      for (let i = 0; i < values.length; i++) if (i % 12 >= 6) values[i] = 0;
    }
    expect(await training.options.objective.loss(weights, batch)).toBeCloseTo(halves, 6);
  });
});

test("the cost of a head counts its weights and, for texts, the pairs of their tokens", () => {
  // Two key and value heads of 4, each read by two query heads; 16 wide.
  const units = (axis: "rows" | "columns") => [{ type: "heads", group: "0.attention", axis, count: 2 }] as const;
  const matrix = (name: string, shape: number[], axis: "rows" | "columns") => ({
    ...{ name, shape, layer: "0", role: "inner" as const, shared: units(axis) },
  });
  const parameters = [
    matrix("q", [16, 16], "rows"),
    matrix("k", [8, 16], "rows"),
    matrix("v", [8, 16], "rows"),
    matrix("o", [16, 16], "columns"),
  ];
  const weights = 8 * 16 + 4 * 16 + 4 * 16 + 16 * 8;
  expect(gatedGroups(parameters, ["heads"], 0)[0].cost).toBe(weights);
  // Two query heads, each with q·k and the weighted values of every token.
  expect(gatedGroups(parameters, ["heads"], 10)[0].cost).toBe(weights + 10 * 2 * (4 + 4));
  expect(() => gatedGroups(parameters.slice(0, 3), ["heads"], 0)).toThrow("no gate has a place");
  expect(() => gatedGroups(parameters, ["neurons"], 0)).toThrow("no neurons that could be gated");
  const groups = gatedGroups(parameters, ["heads"], 0);
  expect(keepWithin(groups, [[0.2, 0.3]], weights)).toEqual([Uint8Array.of(0, 1)]);
  expect(keepWithin(groups, [[0.2, 0.3]], weights - 1)).toEqual([Uint8Array.of(0, 0)]);
});
