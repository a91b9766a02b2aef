import { beforeAll, describe, expect, test, vi } from "vitest";

// Before the engine is imported: below Node 24 it looks for this class whenever it meets a 64-bit float.
vi.hoisted(() => {
  (globalThis as { Float16Array?: unknown }).Float16Array ??= class extends Float32Array {};
});

import { Random } from "../../src/core/index.js";
import { openBackend } from "../../src/kernels/index.js";
import { ControlledMlp } from "../../src/model/controlledMlp.js";
import { fromFloat32, toFloat32 } from "../../src/tensor/index.js";
import { startEngine } from "../../src/train/engine/engine.js";
import { multiply, sum, type Traced } from "../../src/train/engine/ops.js";
import { type TracedArrays, tracedObjective } from "../../src/train/engine/tracedObjective.js";
import {
  controllerArrays,
  controllerMask,
  convolve,
  hardName,
  initialTerraformer,
  multiplicativeDense,
  noiseName,
  type TerraformerOptions,
  terraformerModel,
} from "../../src/train/models/terraformer.js";
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
        ({ logits, noise, hard }) => controllerMask(logits, block, noise, hard),
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

  const small: TerraformerOptions = {
    ...{ vocabulary: 7, layers: 1, hiddenSize: 8, heads: 2, intermediateSize: 8, window: 4 },
    mlp: { block: 2, rank: 3 },
    attention: "convolutional",
  };
  const rows = 8;
  const text = {
    tokens: { shape: [rows], values: Int32Array.from({ length: rows }, (_, i) => (3 * i) % 7) },
    label: { shape: [rows], values: Int32Array.from({ length: rows }, (_, i) => (5 * i + 1) % 7) },
  };
  const wide = (options: TerraformerOptions) =>
    new Map(
      Array.from(initialTerraformer(terraformerModel(options).parameters, new Random(3)), ([name, values]) => [
        name,
        Float64Array.from(values),
      ]),
    );

  test.each([
    [small],
    [{ ...small, attention: "multiplicative" as const }],
    [{ ...small, attention: "dense" as const, mlp: "dense" as const }],
  ])("gradients of every parameter are those of central differences: $attention", async (options) => {
    using objective = tracedObjective(terraformerModel(options));
    const weights = wide(options);
    const noise = Float64Array.from({ length: rows * 8 }, () => 0.1 * random.normal());
    const batch = {
      ...text,
      [noiseName]: { shape: [1, rows, 8], values: noise },
      [hardName]: { shape: [1], values: Float64Array.of(0) },
    };
    const { gradients } = await objective.lossAndGradients(weights, batch);
    for (const [name, values] of weights) {
      const at = Math.floor(values.length / 3);
      const moved = async (by: number) => {
        const changed = new Map(weights).set(name, values.slice());
        changed.get(name)![at] += by;
        return objective.loss(changed, batch);
      };
      const numeric = ((await moved(1e-5)) - (await moved(-1e-5))) / 2e-5;
      expect(gradients.get(name)![at], name).toBeCloseTo(numeric, 6);
    }
  });

  test("with blocks of one unit it is the dense MLP, whatever the controller says", async () => {
    const dense = { ...small, mlp: "dense" as const };
    const single = { ...small, mlp: { block: 1, rank: 3 } };
    using one = tracedObjective(terraformerModel(dense));
    using other = tracedObjective(terraformerModel(single));
    const weights = wide(single);
    const batch = { ...text, ...controllerArrays(single, rows, new Random(1)) };
    const [expected, made] = [await one.predict(weights, batch), await other.predict(weights, batch)];
    for (const [i, value] of expected.entries()) expect(made[i]).toBeCloseTo(value, 6);
  });
});

describe("on kernels", () => {
  test.each(["reference", "wasm"] as const)(
    "%s: decoding is the masked dense MLP, and reads what was chosen",
    async (id) => {
      using backend = await openBackend(id, { threads: 1 });
      const [hiddenSize, units, block, rank] = [32, 64, 8, 4];
      const own = new Random(9);
      const numbers = (length: number) =>
        toFloat32(
          "BF16",
          fromFloat32(
            "BF16",
            Float32Array.from({ length }, () => own.normal()),
          ),
        );
      const weights = {
        ...{ hiddenSize, units, block, rank },
        ...{ up: numbers(units * hiddenSize), down: numbers(units * hiddenSize), downBias: numbers(hiddenSize) },
        ...{ controllerDown: numbers(rank * hiddenSize), controllerUp: numbers(units * rank) },
        controllerBias: numbers(units),
      };
      using mlp = await ControlledMlp.load(backend, weights);
      const product = (w: Float32Array, x: ArrayLike<number>, rows: number) => {
        const cols = w.length / rows;
        return Float64Array.from({ length: rows }, (_, r) => {
          let total = 0;
          for (let c = 0; c < cols; c++) total += w[r * cols + c] * x[c];
          return total;
        });
      };
      for (let trial = 0; trial < 3; trial++) {
        const input = Float32Array.from({ length: hiddenSize }, () => own.normal());
        const logits = product(weights.controllerUp, product(weights.controllerDown, input, rank), units);
        for (const [u, bias] of weights.controllerBias.entries()) logits[u] += bias;
        const hidden = product(weights.up, input, units).map((value, u) => {
          const of = logits.subarray(u - (u % block), u - (u % block) + block);
          return of[u % block] === Math.max(...of) ? Math.max(0, value) : 0;
        });
        const expected = product(weights.down, hidden, hiddenSize).map((value, i) => value + weights.downBias[i]);
        const [x, out] = [backend.allocate(1, hiddenSize), backend.allocate(1, hiddenSize)];
        backend.write(x, input);
        backend.takeCounters();
        await mlp.run(out, x);
        const made = await backend.read(out);
        for (const [i, value] of expected.entries()) expect(Math.abs(made[i] - value)).toBeLessThan(1e-3);
        const working = hidden.filter((value) => value > 0).length;
        expect(backend.takeCounters()).toMatchObject({ inputs: units, inputsSkipped: units - working });
        for (const activation of [x, out]) backend.release(activation);
      }
    },
  );
});
