import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { readModelSpec } from "../../src/arch/index.js";
import { Random } from "../../src/core/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { multiply, sum, type Traced } from "../../src/train/engine/ops.js";
import { type TracedArrays, tracedObjective } from "../../src/train/engine/tracedObjective.js";
import { controllerArrays, controllerControl, hardName, noiseName } from "../../src/train/models/controllers.js";
import { controllerMask, convolve, multiplicativeDense } from "../../src/train/trace/thin.js";
import type { FloatArray } from "../../src/train/values.js";

const random = new Random(5);
const normals = (length: number) => Float64Array.from({ length }, () => random.normal());

/** A traced function of named arrays as predictions, and as a loss with a gradient. */
function traced(shapes: Record<string, number[]>, made: (arrays: TracedArrays) => Traced, weighing?: Float64Array) {
  const parameters = Object.entries(shapes).map(([name, shape]) => ({
    name,
    shape,
    layer: "",
    role: "dense" as const,
  }));
  const objective = tracedObjective({
    parameters,
    predict: made,
    loss: (weights, { outer }) => ({ loss: sum(multiply(made(weights), outer)) }),
  });
  const values = new Map<string, FloatArray>(
    parameters.map(({ name, shape }) => [name, normals(shape.reduce((a, b) => a * b, 1))]),
  );
  const batch = (shape: number[]) => ({
    outer: { shape, values: weighing ?? normals(shape.reduce((a, b) => a * b, 1)) },
  });
  return { objective, values, batch };
}

describe("layers", () => {
  // 64-bit floats.
  beforeAll(() => startEngine("cpu"));

  test("a multiplicative layer is the matrix W[(s, m), i] = scales[s, i] · mixes[m, i]", async () => {
    const [n, d, modules, channels] = [3, 6, 2, 3];
    const { objective, values, batch } = traced({ x: [n, d], s: [modules, d], e: [channels, d] }, ({ x, s, e }) =>
      multiplicativeDense(x, s, e),
    );
    using _objective = objective;
    const made = await objective.predict(values, batch([n, d]));
    const [x, s, e] = ["x", "s", "e"].map((name) => values.get(name)!);
    for (let r = 0; r < n; r++) {
      for (let o = 0; o < d; o++) {
        let wanted = 0;
        for (let i = 0; i < d; i++)
          wanted += x[r * d + i] * s[Math.floor(o / channels) * d + i] * e[(o % channels) * d + i];
        expect(made[r * d + o]).toBeCloseTo(wanted, 10);
      }
    }
  });

  test.each([
    [3, 3],
    [3, 1],
    [1, 1],
  ])("a convolution of %i positions and %i modules is its sum, causal, zeros around", async (length, width) => {
    const [sequences, window, modules, channels] = [2, 5, 4, 2];
    const cols = modules * channels;
    const { objective, values, batch } = traced(
      { x: [sequences * window, cols], kernel: [channels, length * width * channels] },
      ({ x, kernel }) => convolve(x, kernel, { window, modules, length, width }),
    );
    using _objective = objective;
    const made = await objective.predict(values, batch([sequences * window, cols]));
    const [x, kernel] = [values.get("x")!, values.get("kernel")!];
    for (let r = 0; r < sequences * window; r++) {
      for (let o = 0; o < cols; o++) {
        const [module, channel] = [Math.floor(o / channels), o % channels];
        let wanted = 0;
        for (let back = 0; back < length; back++) {
          for (let at = 0; at < width; at++) {
            const [from, other] = [(r % window) - back, module + at - Math.floor(width / 2)];
            if (from < 0 || other < 0 || other >= modules) continue;
            for (let c = 0; c < channels; c++) {
              const weight = kernel[channel * length * width * channels + (back * width + at) * channels + c];
              wanted += weight * x[(r - back) * cols + other * channels + c];
            }
          }
        }
        expect(made[r * cols + o]).toBeCloseTo(wanted, 10);
      }
    }
  });

  test("a controller chooses one unit of every block, and its gradient is that of the probabilities", async () => {
    const [n, units, block] = [3, 12, 4];
    const weighing = normals(n * units);
    const gradientAt = async (hard: number) => {
      const { objective, batch } = traced(
        { logits: [n, units], noise: [n, units], hard: [1] },
        ({ logits, noise, hard }) => controllerMask(logits, block, { noise, hard }),
        weighing,
      );
      using _objective = objective;
      const own = new Random(7);
      const logits = Float64Array.from({ length: n * units }, () => own.normal());
      const values = new Map<string, FloatArray>([
        ["logits", logits],
        ["noise", new Float64Array(n * units)],
        ["hard", Float64Array.of(hard)],
      ]);
      const mask = await objective.predict(values, batch([n, units]));
      const { gradients } = await objective.lossAndGradients(values, batch([n, units]));
      return { logits, mask, gradient: gradients.get("logits")! };
    };
    const [soft, hard] = [await gradientAt(0), await gradientAt(1)];
    expect(hard.gradient).toEqual(soft.gradient);
    for (let at = 0; at < n * units; at += block) {
      const own = hard.logits.subarray(at, at + block);
      const best = own.indexOf(Math.max(...own));
      for (let i = 0; i < block; i++) expect(hard.mask[at + i]).toBeCloseTo(i === best ? 1 : 0, 12);
      expect(Array.from(soft.mask.subarray(at, at + block)).reduce((a, b) => a + b)).toBeCloseTo(1, 12);
    }
  });
});

describe("what controllers are given in training", () => {
  const specOf = (block?: number) =>
    readModelSpec(
      {
        ...{ model_type: "terraformer", vocab_size: 7, hidden_size: 8, intermediate_size: 12, num_hidden_layers: 2 },
        ...{ num_attention_heads: 2, ...(block && { controller_block: block, controller_rank: 4 }) },
      },
      "config.json",
    );

  test("Gumbel noise of a tenth, hard in three steps of ten, others in every step and the same for a seed", () => {
    const sizes = { layers: 2, units: 500 };
    const steps = Array.from({ length: 200 }, (_, step) => controllerArrays(sizes, 1, 3, step));
    const all = steps.flatMap(({ [noiseName]: { values } }) => [...values]);
    const mean = all.reduce((a, b) => a + b) / all.length;
    // A Gumbel variable has the mean γ and the variance π² / 6.
    expect(mean).toBeCloseTo(0.1 * 0.5772, 2);
    expect(all.reduce((a, b) => a + (b - mean) ** 2, 0) / all.length).toBeCloseTo(0.01 * (Math.PI ** 2 / 6), 3);
    const hard = steps.filter(({ [hardName]: { values } }) => values[0] === 1).length;
    expect(hard).toBeGreaterThan(40);
    expect(hard).toBeLessThan(80);
    expect(steps[0][noiseName].values).not.toEqual(steps[1][noiseName].values);
    expect(controllerArrays(sizes, 1, 3, 1)).toEqual(steps[1]);
  });

  test("a model without controllers is given nothing, one that is measured no noise, and a stored run goes on", () => {
    expect(controllerControl(specOf(), 4, 0)).toBeUndefined();
    const control = controllerControl(specOf(3), 4, 0)!;
    expect(control.evaluationArrays!()).toEqual({});
    const first = control.arrays();
    expect(first[noiseName].shape).toEqual([2, 4, 12]);
    control.observe(new Map());
    expect(control.arrays()).not.toEqual(first);
    const resumed = controllerControl(specOf(3), 4, 0)!;
    Object.assign(resumed.state, control.state);
    expect(resumed.arrays()).toEqual(control.arrays());
  });
});
