import { describe, expect, test } from "vitest";
import { trainMethods } from "../../src/train/methods/index.js";
import { adamWithMaskedDecay } from "../../src/train/optimizers/adamDecay.js";
import { chain } from "../../src/train/optimizers/link.js";
import { descend, keepMasks } from "../../src/train/optimizers/links.js";
import { constant } from "../../src/train/optimizers/schedule.js";
import type { State } from "../../src/train/state.js";
import { Training } from "../../src/train/training.js";
import type { FloatArray } from "../../src/train/values.js";
import { threeLayerBatch, threeLayers, threeLayerWeights } from "./threeLayers.js";

/** What different methods must have in common: pairs of settings that are the same algorithm, step for step. */

const rate = 0.01;
const steps = 40;

async function begin(id: string, options: object, weights = threeLayerWeights(1), weightDecay = 0) {
  const { method } = await trainMethods[id]();
  return new Training({
    objective: threeLayers(),
    weights,
    optimizer: { rate: constant(rate), weightDecay },
    steps,
    seed: 5,
    method: (context) => method.start(context, method.options.parse(options)),
  });
}

async function weightsAfter(
  id: string,
  options: object,
  weights?: Map<string, FloatArray>,
  weightDecay?: number,
): Promise<Record<string, number[]>> {
  const training = await begin(id, options, weights, weightDecay);
  for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
  return plain(training.weights);
}

const plain = (weights: ReadonlyMap<string, FloatArray>) =>
  Object.fromEntries(Array.from(weights, ([name, values]) => [name, Array.from(values)]));

/** Weights that a method holds at exact zero, made by magnitude in each matrix. */
function halfZero(): Map<string, FloatArray> {
  return new Map(
    Array.from(threeLayerWeights(1), ([name, values]) => {
      const threshold = Array.from(values, Math.abs).sort((a, b) => a - b)[values.length / 2];
      return [name, values.map((w: number) => (Math.abs(w) < threshold ? 0 : w))];
    }),
  );
}

const keepAll = { type: "unstructured", sparsity: 0 };

describe("step for step the same", () => {
  test.each<[string, [string, object], [string, object]]>([
    ["SR-STE without decay is STE", ["sr-ste", { decay: 0 }], ["ste", {}]],
    ["STE with a full mask is dense training", ["ste", { pattern: keepAll }], ["dense", {}]],
    ["autograd through a full mask is dense training", ["ste", { pattern: keepAll, rule: "autograd" }], ["dense", {}]],
    ["SR-STE with a full mask is dense training", ["sr-ste", { pattern: keepAll }], ["dense", {}]],
    ["hard thresholding at density 1 is Adam", ["iht", { density: 1, scope: "global" }], ["dense", {}]],
    ["layer-wise hard thresholding at density 1 is Adam", ["iht", { density: 1 }], ["dense", {}]],
    ["the metric proximal step without L1 is Adam", ["l1", { lambda: 0 }], ["dense", {}]],
    ["the decoupled proximal step without L1 is Adam", ["l1", { lambda: 0, variant: "decoupled" }], ["dense", {}]],
    ["the naive sub-gradient without L1 is Adam", ["l1", { lambda: 0, variant: "naive" }], ["dense", {}]],
    ["RigL at density 1 is dense training", ["rigl", { density: 1, replaced: 0 }], ["dense", {}]],
    [
      "grow-then-prune at density 1 throughout is dense training",
      ["grow-prune", { initial: 1, peak: 1, final: 1, interval: steps }],
      ["dense", {}],
    ],
    [
      "gradual pruning from S to S is one-shot pruning",
      ["gradual", { initial: 0.5, final: 0.5, interval: 10 }],
      ["fixed-mask", { mask: "magnitude", pattern: 0.5 }],
    ],
    [
      "CAST with a full mask and AST with a full mask are one optimiser",
      ["cast", { pattern: keepAll, scales: 0 }],
      ["ast", { pattern: keepAll }],
    ],
    ["RigL that replaces nothing is SET that replaces nothing", ["rigl", { replaced: 0 }], ["set", { replaced: 0 }]],
  ])("%s", async (_name, [id, options], [otherId, otherOptions]) => {
    expect(await weightsAfter(id, options)).toEqual(await weightsAfter(otherId, otherOptions));
  });

  test("weight decay and all, a fixed mask is the network without those weights", async () => {
    const zeros = halfZero();
    const masks = new Map(
      Array.from(zeros, ([name, values]) => [name, Uint8Array.from(values, (w) => (w === 0 ? 0 : 1))]),
    );
    // Without those weights: gradients that do not exist never reach Adam, whose moments stay 0, and 0 decays to 0.
    const dense = await begin("dense", {}, new Map(Array.from(zeros, ([n, v]) => [n, v.slice()])), 0.1);
    const inner = threeLayers();
    const original = inner.lossAndGradients.bind(inner);
    dense.options.objective.lossAndGradients = async (weights, batch) => {
      const result = await original(weights, batch);
      for (const [name, mask] of masks) {
        const g = result.gradients.get(name)!;
        for (let i = 0; i < mask.length; i++) if (mask[i] === 0) g[i] = 0;
      }
      return result;
    };
    for (let step = 0; step < steps; step++) await dense.advance(threeLayerBatch(step));
    expect(await weightsAfter("fixed-mask", {}, zeros, 0.1)).toEqual(plain(dense.weights));
  });

  test("RigL that replaces nothing is a fixed mask", async () => {
    const start = await begin("rigl", { density: 0.5, replaced: 0 });
    const sparse = new Map(Array.from(start.weights, ([name, values]) => [name, values.slice()]));
    for (let step = 0; step < steps; step++) await start.advance(threeLayerBatch(step));
    expect(await weightsAfter("fixed-mask", {}, sparse)).toEqual(plain(start.weights));
  });

  test("hard thresholding frozen from the first step on is a fixed mask", async () => {
    const frozen = await begin("iht", { density: 0.5, scope: "global", freezeAt: 0 });
    await frozen.advance(threeLayerBatch(0));
    const zeros = new Map(Array.from(frozen.weights, ([name, values]) => [name, values.slice()]));
    for (let step = 1; step < steps; step++) {
      await frozen.advance(threeLayerBatch(step));
      for (const [name, values] of frozen.weights) {
        const was = zeros.get(name)!;
        for (let i = 0; i < values.length; i++) if (was[i] === 0) expect(values[i]).toBe(0);
      }
    }
  });

  test("layer-wise selection on one inner layer is global selection over that layer alone", async () => {
    const { method } = await trainMethods.iht();
    const run = async (scope: string, roles: Record<string, "inner" | "outer" | "dense">) => {
      const objective = threeLayers();
      const parameters = objective.parameters.map((info) => ({ ...info, role: roles[info.name] }));
      const training = new Training({
        objective: { ...objective, parameters },
        weights: threeLayerWeights(1),
        optimizer: { rate: constant(rate) },
        steps,
        seed: 5,
        method: (context) => method.start(context, method.options.parse({ density: 0.3, scope })),
      });
      for (let step = 0; step < steps; step++) await training.advance(threeLayerBatch(step));
      return plain(training.weights);
    };
    const layerWise = await run("layer", { a: "outer", b: "inner", c: "outer" });
    expect(layerWise).toEqual(await run("global", { a: "dense", b: "inner", c: "dense" }));
    expect(layerWise.b.filter((w) => w !== 0)).toHaveLength(Math.round(0.3 * 144));
  });
});

test("AdamS with a full mask is Adam whose second moment is that of the mean", async () => {
  const weights = threeLayerWeights(1);
  const masks = new Map(Array.from(weights, ([name, values]) => [name, new Uint8Array(values.length).fill(1)]));
  const link = chain(
    adamWithMaskedDecay({}, masks, () => Number.NaN),
    descend(constant(rate)),
  );
  const state = link.init(weights) as State;
  const updates = new Map(Array.from(weights, ([name, values]) => [name, values.slice()]));
  const g = Array.from(weights.get("b")!);
  link.update!(updates, state, weights, 0);
  const mean = g.map((v) => 0.1 * v);
  const expected = mean.map((m) => (-rate * m) / 0.1 / (Math.sqrt((0.001 * m * m) / 0.001) + 1e-8));
  for (const [i, u] of updates.get("b")!.entries()) expect(u).toBeCloseTo(expected[i], 6);
});

test("masks survive momentum and decay: nothing outside the mask ever moves", async () => {
  const zeros = halfZero();
  const masks = new Map(
    Array.from(zeros, ([name, values]) => [name, Uint8Array.from(values, (w) => (w === 0 ? 0 : 1))]),
  );
  const link = chain(keepMasks(masks), descend(constant(rate)), keepMasks(masks));
  const updates = threeLayerWeights(2);
  link.update!(updates, link.init(zeros), zeros, 0);
  for (const [name, mask] of masks) {
    for (let i = 0; i < mask.length; i++) if (mask[i] === 0) expect(Math.abs(updates.get(name)![i])).toBe(0);
  }
});
