import { afterAll, describe, expect, test } from "vitest";
import { Random } from "../../src/core/index.js";
import { startEngine, stopEngine } from "../../src/train/engine/engine.js";

import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();
const unavailable = await startEngine("webgpu").then(
  () => undefined,
  (error: Error) => error.message,
);

describe.skipIf(unavailable !== undefined)(
  `training on WebGPU${unavailable === undefined ? "" : `: ${unavailable}`}`,
  () => {
    afterAll(() => stopEngine("webgpu"));

    test("loss and gradients of an MLP are those of the sums written out in f64", async () => {
      const [{ tracedObjective }, { mlp, initialMlp }] = await Promise.all([
        import("../../src/train/engine/tracedObjective.js"),
        import("../../src/train/models/mlp.js"),
      ]);
      const [inputs, hidden, rows] = [3, 4, 5];
      const model = mlp({ widths: [inputs, hidden, 1], activation: "sigmoid", task: "regression" });
      const weights = initialMlp(model.parameters, new Random(1));
      const random = new Random(2);
      const x = Float32Array.from({ length: rows * inputs }, () => random.normal());
      const target = Float32Array.from({ length: rows }, () => random.normal());
      const objective = tracedObjective(model);
      const { loss, gradients } = await objective.lossAndGradients(weights, {
        input: { shape: [rows, inputs], values: x },
        target: { shape: [rows], values: target },
      });
      objective[Symbol.dispose]();

      const [a, b, c, d] = ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"].map(
        (n) => weights.get(n)!,
      );
      const ofA = new Float64Array(a.length);
      const ofC = new Float64Array(c.length);
      let expected = 0;
      for (let r = 0; r < rows; r++) {
        const row = x.subarray(r * inputs, (r + 1) * inputs);
        const h = Array.from(
          b,
          (bias, j) => 1 / (1 + Math.exp(-row.reduce((sum, v, i) => sum + v * a[j * inputs + i], bias))),
        );
        const error = h.reduce((sum, v, j) => sum + v * c[j], d[0]) - target[r];
        expected += (error * error) / rows;
        for (let j = 0; j < hidden; j++) {
          ofC[j] += (2 / rows) * error * h[j];
          for (let i = 0; i < inputs; i++)
            ofA[j * inputs + i] += (2 / rows) * error * c[j] * h[j] * (1 - h[j]) * row[i];
        }
      }
      expect(loss).toBeCloseTo(expected, 5);
      for (const [i, g] of ofA.entries()) expect(gradients.get("layers.0.weight")![i]).toBeCloseTo(g, 5);
      for (const [i, g] of ofC.entries()) expect(gradients.get("layers.1.weight")![i]).toBeCloseTo(g, 5);
    });
  },
);
