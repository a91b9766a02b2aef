import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { jit, numpy as np } from "@jax-js/jax";
import type { BlockGates } from "../../src/arch/index.js";
import { gatedWeights } from "../../src/arch/internal.js";
import { Random, UsageError } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { binaryCrossEntropy, largestOfText, straightThrough } from "../../src/train/engine/gates.js";
import type { Traced } from "../../src/train/engine/ops.js";
import { tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { trainableConfig } from "../../src/train/languageModel.js";
import { gateCapacityName, gateShareName, gateTargetName, gateWeightName } from "../../src/train/models/gateNames.js";
import { gateControl, gateTrainings, initialGates, parseLayerGates } from "../../src/train/models/layerGates.js";
import { modelParameters } from "../../src/train/models/parameters.js";
import { traceModel } from "../../src/train/trace/trace.js";
import { arbitraryText, NaiveLlama } from "../runtime/naiveLlama.js";
import { gatesLayers } from "../support/gatesLayers.js";

beforeAll(() => startEngine("cpu"));

const window = 6;
const text = arbitraryText(window + 1);
const scalar = (value: number) => ({ shape: [], values: Float64Array.of(value) });

/** How tokens go through gates, which is settled, and what it adds to the loss. */
interface Settled {
  /** [gate][token]: 1 or 0, less the logistic function of z, at the weights where the gradient is wanted. */
  offsets: number[][];
  /** [gate][token]: whether it has a key. */
  open: boolean[][];
}

/**
 * The loss in f64, one token at a time, with the factor σ(z) + offset for every gate: what a straight-through gradient is the
 * gradient of. Without `settled` offsets are those that make factors 0 or 1.
 */
async function naively(
  weights: ReadonlyMap<string, Float64Array>,
  { units, capacity }: { units: BlockGates["units"]; capacity?: number },
  settled?: Settled,
) {
  const checkpoint = await gatesLayers("llama", { units });
  const naive = new NaiveLlama(checkpoint);
  for (const [name, values] of weights) naive.weights.set(name, values);
  const { spec } = await trainableConfig(checkpoint);
  const gates = spec.blocks.flatMap((block, layer) =>
    block.gates!.map((gate) => ({ layer, part: gate.part, map: gate.map, weights: gatedWeights(block, gate) })),
  );
  const z: number[][] = gates.map(() => []);
  const found: Settled = settled ?? { offsets: gates.map(() => []), open: gates.map(() => []) };
  const factors: number[][] = gates.map(() => []);
  let at = 0;
  naive.gate = (layer, part, x) => {
    const g = gates.findIndex((gate) => gate.layer === layer && gate.part === part);
    if (g < 0) return 1;
    const [weight, [bias]] = [gates[g].map.weight, gates[g].map.bias!].map(({ tensor }) => naive.weights.get(tensor)!);
    const size = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length + 1e-6);
    z[g][at] = x.reduce((sum, value, c) => sum + (value / size) * weight[c], bias);
    const soft = 1 / (1 + Math.exp(-z[g][at]));
    if (settled === undefined) {
      found.open[g][at] = z[g][at] > 0;
      found.offsets[g][at] = (z[g][at] > 0 ? 1 : 0) - soft;
    }
    factors[g][at] = soft + found.offsets[g][at];
    return factors[g][at];
  };
  let loss = 0;
  for (let position = 0; position < window; position++) {
    at = position;
    const { logits } = naive.step(text[position], position, (layer) => {
      const g = gates.findIndex((gate) => gate.layer === layer && gate.part !== "mlp");
      return Array.from({ length: position + 1 }, (_, p) => ({
        position: p,
        turn: p,
        weight: p === position || g < 0 ? 1 : found.open[g][p] ? factors[g][p] : 0,
      }));
    });
    const most = Math.max(...logits);
    const total = logits.reduce((sum, value) => sum + Math.exp(value - most), 0);
    loss += (Math.log(total) + most - logits[text[position + 1]]) / window;
  }
  const all = gates.reduce((sum, gate) => sum + gate.weights, 0);
  const share = factors.reduce(
    (sum, row, g) => sum + ((gates[g].weights / all) * row.reduce((a, b) => a + b, 0)) / window,
    0,
  );
  return { loss: loss + 3 * (share - 0.4) ** 2, share, found, prediction: loss, capacity };
}

describe.each<BlockGates["units"]>(["block", "attention", "mlp", "sublayers"])("hard gates in front of %s", (units) => {
  test("gradients are the central difference of the loss whose gates are logistic, each moved to 0 or 1, in f64", async () => {
    const checkpoint = await gatesLayers("llama", { units });
    const { spec } = await trainableConfig(checkpoint);
    const parameters = modelParameters(spec, checkpoint.tensors);
    const weights = new Map(parameters.map(({ name }) => [name, Float64Array.from(checkpoint.values(name))]));
    using objective = tracedObjective(traceModel(spec, parameters, window));
    const batch = {
      tokens: { shape: [window], values: Int32Array.from(text.subarray(0, window)) },
      label: { shape: [window], values: Int32Array.from(text.subarray(1)) },
      [gateTargetName]: scalar(0.4),
      [gateWeightName]: scalar(3),
    };
    const { loss, gradients, measured } = await objective.lossAndGradients(weights, batch);
    const here = await naively(weights, { units });
    expect(here.share).toBeGreaterThan(0.1);
    expect(here.share).toBeLessThan(0.95);
    expect(loss).toBeCloseTo(here.loss, 6);
    expect(measured.get(gateShareName)![0]).toBeCloseTo(here.share, 6);
    expect(measured.get("prediction")![0]).toBeCloseTo(here.prediction, 6);

    const random = new Random(5);
    const directions = new Map(
      Array.from(weights, ([name, values]) => {
        const gradient = gradients.get(name) as Float64Array;
        const size = Math.max(1e-3, Math.hypot(...gradient));
        if (/gate\.(weight|bias)/.test(name)) expect(gradient.some((g) => g !== 0)).toBe(true);
        return [
          name,
          values.map((_, i) => (gradient[i] / size + random.normal() / Math.sqrt(values.length)) / size),
        ] as const;
      }),
    );
    const slope = Array.from(directions, ([name, direction]) =>
      direction.reduce((sum, d, i) => sum + d * (gradients.get(name) as Float64Array)[i], 0),
    ).reduce((a, b) => a + b, 0);
    const lossAt = async (shift: number) => {
      const moved = Array.from(weights, ([name, values]) => {
        const direction = directions.get(name)!;
        return [name, values.map((value, i) => value + shift * direction[i])] as const;
      });
      return (await naively(new Map(moved), { units }, here.found)).loss;
    };
    const h = 1e-6;
    const difference = ((await lossAt(h)) - (await lossAt(-h))) / (2 * h);
    expect(Math.abs(slope - difference) / Math.abs(difference)).toBeLessThan(1e-5);
  });
});

describe("the most wanted tokens of a text", () => {
  const z = Float64Array.of(0.1, 2, -1, 0.1, 3, 0.5, -2, 0.5);
  const array = (values: Float64Array, shape: number[]) => np.array(values as never, { shape });

  test("are as many as the share says, of equals the first, of every text its own", async () => {
    const of = jit((z: Traced, share: Traced) => largestOfText(z, share));
    const found = await (of(array(z, [2, 4]), array(Float64Array.of(0.5), [])) as Traced).data();
    expect([...found]).toEqual([1, 1, 0, 0, 1, 1, 0, 0]);
    const all = await (of(array(z, [2, 4]), array(Float64Array.of(1), [])) as Traced).data();
    expect([...all]).toEqual(new Array(8).fill(1));
  });

  test("are let through whatever they are worth; gates learn to tell them, in nats", async () => {
    const of = jit((z: Traced, wanted: Traced) => [straightThrough(wanted, z), binaryCrossEntropy(z, wanted)]);
    const wanted = Float64Array.of(1, 1, 0, 0, 1, 1, 0, 0);
    const [through, missed] = of(array(z, [8]), array(wanted, [8])) as Traced[];
    expect([...(await through.data())]).toEqual([...wanted]);
    const expected = z.reduce((sum, value, i) => sum + Math.log(1 + Math.exp(wanted[i] ? -value : value)) / 8, 0);
    expect((await missed.data())[0]).toBeCloseTo(expected, 6);
  });

  test("in a model: the share of every gate is what was asked for, and measured as the runtime would have it without", async () => {
    const checkpoint = await gatesLayers("llama", { units: "sublayers" });
    const { spec } = await trainableConfig(checkpoint);
    const parameters = modelParameters(spec, checkpoint.tensors);
    const weights = new Map(parameters.map(({ name }) => [name, Float64Array.from(checkpoint.values(name))]));
    using objective = tracedObjective(traceModel(spec, parameters, window));
    const batch = {
      tokens: { shape: [window], values: Int32Array.from(text.subarray(0, window)) },
      label: { shape: [window], values: Int32Array.from(text.subarray(1)) },
    };
    const steered = { ...batch, [gateCapacityName]: scalar(0.5), [gateWeightName]: scalar(0.1) };
    const { loss, measured, gradients } = await objective.lossAndGradients(weights, steered);
    expect(measured.get(gateShareName)![0]).toBeCloseTo(0.5, 6);
    expect(loss).toBeGreaterThan(measured.get("prediction")![0]);
    expect(gradients.get("model.layers.0.attention_gate.bias")![0]).not.toBe(0);
    const free = await objective.lossAndGradients(weights, batch);
    const { share, prediction } = await naively(weights, { units: "sublayers" });
    expect(free.measured.get(gateShareName)![0]).toBeCloseTo(share, 6);
    expect(free.loss).toBeCloseTo(prediction, 6);
  });
});

describe("how it is steered", () => {
  test("the share falls along a line, and stays", () => {
    const control = gateControl(parseLayerGates("hard:share=0.6,until=0.5,weight=7"), 100);
    const targets: number[] = [];
    for (let step = 0; step < 100; step++) {
      const arrays = control.arrays();
      targets.push(arrays[gateTargetName].values[0]);
      expect(arrays[gateWeightName].values[0]).toBe(7);
      control.observe(new Map([[gateShareName, Float32Array.of(0.9)]]));
    }
    expect(targets[0]).toBe(1);
    expect(targets[25]).toBeCloseTo(0.8, 6);
    for (const target of targets.slice(50)) expect(target).toBeCloseTo(0.6, 6);
    expect(control.metrics!().layerShare).toBeCloseTo(0.9, 6);
    expect(control.evaluationArrays!()).toEqual({});
    expect(control.state).toEqual({ step: 100, share: expect.closeTo(0.9, 6) });
  });

  test.each(Object.keys(gateTrainings))("%s has all that the others have", (name) => {
    const { values } = parseLayerGates(name);
    expect(values.units).toBe("block");
    expect(values.bias).toBe(1);
    expect(parseLayerGates(`${name}:units=sublayers,bias=2`).values).toMatchObject({ units: "sublayers", bias: 2 });
  });

  test.each([
    ["softer", "soft, hard, topk"],
    ["hard:share=1.5", "share is a number from 0 to 1"],
    ["hard:unit=block", "unit"],
    ["soft:share=0.5", "share"],
    ["topk:units=layers", "units is one of block, attention, mlp, sublayers"],
  ])("%s is refused by name", (text, message) => {
    expect(() => parseLayerGates(text)).toThrow(UsageError);
    expect(() => parseLayerGates(text)).toThrow(message);
  });

  test("new gates lie about their bias, and are the seed's", async () => {
    const { spec } = await trainableConfig(await gatesLayers("llama"));
    const parameters = modelParameters(spec).filter(({ name }) => name.includes("layer_gate"));
    const gates = parseLayerGates("hard:bias=1.5");
    const begun = initialGates(parameters, gates, 3);
    expect(begun).toEqual(initialGates(parameters, gates, 3));
    expect(begun).not.toEqual(initialGates(parameters, gates, 4));
    expect(begun.get("model.layers.1.layer_gate.bias")).toEqual(Float32Array.of(1.5));
    const weight = begun.get("model.layers.0.layer_gate.weight")!;
    expect(Math.hypot(...weight)).toBeGreaterThan(0.3);
    expect(Math.hypot(...weight)).toBeLessThan(0.8);
  });
});
