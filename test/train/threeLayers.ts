import { Random } from "../../src/core/index.js";
import type { Batch, Objective } from "../../src/train/objective.js";
import type { FloatArray, ParameterInfo } from "../../src/train/values.js";

const [inputs, hidden, outputs] = [8, 12, 4];

type Axis = "rows" | "columns";
const neurons = (group: string) => (axis: Axis) => ({ type: "neurons", group, axis, count: hidden }) as const;
const [first, second] = [neurons("first"), neurons("second")];

/**
 * y = C·tanh(B·tanh(A·x)) against targets, squared error, gradient by hand in f64: an objective without the engine, and an
 * oracle for it. A and C are the outer layers, B the inner one.
 */
export function threeLayers(): Objective {
  const parameters: ParameterInfo[] = [
    { name: "a", shape: [hidden, inputs], layer: "0", role: "outer", shared: [first("rows")] },
    { name: "b", shape: [hidden, hidden], layer: "1", role: "inner", shared: [first("columns"), second("rows")] },
    { name: "c", shape: [outputs, hidden], layer: "2", role: "outer", shared: [second("columns")] },
  ];
  const forward = (weights: ReadonlyMap<string, FloatArray>, x: FloatArray) => {
    const h1 = times(weights.get("a")!, x, hidden, inputs).map(Math.tanh);
    const h2 = times(weights.get("b")!, h1, hidden, hidden).map(Math.tanh);
    return { h1, h2, y: times(weights.get("c")!, h2, outputs, hidden) };
  };
  return {
    parameters,
    async lossAndGradients(weights, batch) {
      const rows = batch.x.shape[0];
      const gradients = new Map<string, FloatArray>(
        parameters.map(({ name, shape }) => {
          const make = weights.get(name) instanceof Float64Array ? Float64Array : Float32Array;
          return [name, new make(shape[0] * shape[1])];
        }),
      );
      let loss = 0;
      for (let r = 0; r < rows; r++) {
        const x = Float64Array.from(batch.x.values.subarray(r * inputs, (r + 1) * inputs));
        const { h1, h2, y } = forward(weights, x);
        const dy = y.map((v, i) => v - batch.y.values[r * outputs + i]);
        loss += dy.reduce((sum, d) => sum + (d * d) / 2, 0) / rows;
        const d2 = timesTransposed(weights.get("c")!, dy, outputs, hidden).map((d, i) => d * (1 - h2[i] ** 2));
        const d1 = timesTransposed(weights.get("b")!, d2, hidden, hidden).map((d, i) => d * (1 - h1[i] ** 2));
        addOuter(gradients.get("c")!, dy, h2, 1 / rows);
        addOuter(gradients.get("b")!, d2, h1, 1 / rows);
        addOuter(gradients.get("a")!, d1, x, 1 / rows);
      }
      return { loss, gradients, measured: new Map() };
    },
    async loss(weights, batch) {
      return (await this.lossAndGradients(weights, batch)).loss;
    },
    async predict(weights, batch) {
      const rows = batch.x.shape[0];
      const out = new Float64Array(rows * outputs);
      for (let r = 0; r < rows; r++) {
        out.set(
          forward(weights, Float64Array.from(batch.x.values.subarray(r * inputs, (r + 1) * inputs))).y,
          r * outputs,
        );
      }
      return out;
    },
    [Symbol.dispose]() {},
  };
}

export function threeLayerWeights(seed: number): Map<string, FloatArray> {
  const random = new Random(seed);
  const normal = (rows: number, cols: number) =>
    Float32Array.from({ length: rows * cols }, () => random.normal() / Math.sqrt(cols));
  return new Map([
    ["a", normal(hidden, inputs)],
    ["b", normal(hidden, hidden)],
    ["c", normal(outputs, hidden)],
  ]);
}

/** Batches of a fixed teacher network: depends on the step alone. */
export function threeLayerBatch(step: number, rows = 6): Batch {
  const random = new Random(1000 + step);
  const x = Float32Array.from({ length: rows * inputs }, () => random.normal());
  const y = new Float32Array(rows * outputs);
  for (let r = 0; r < rows; r++) {
    for (let o = 0; o < outputs; o++) y[r * outputs + o] = Math.sin(x[r * inputs + o] + x[r * inputs + o + 1]);
  }
  return { x: { shape: [rows, inputs], values: x }, y: { shape: [rows, outputs], values: y } };
}

function times(matrix: FloatArray, x: FloatArray, rows: number, cols: number): Float64Array {
  return Float64Array.from({ length: rows }, (_, r) => {
    let sum = 0;
    for (let c = 0; c < cols; c++) sum += matrix[r * cols + c] * x[c];
    return sum;
  });
}

function timesTransposed(matrix: FloatArray, d: FloatArray, rows: number, cols: number): Float64Array {
  return Float64Array.from({ length: cols }, (_, c) => {
    let sum = 0;
    for (let r = 0; r < rows; r++) sum += matrix[r * cols + c] * d[r];
    return sum;
  });
}

function addOuter(gradient: FloatArray, d: FloatArray, x: FloatArray, factor: number): void {
  for (let r = 0; r < d.length; r++)
    for (let c = 0; c < x.length; c++) gradient[r * x.length + c] += factor * d[r] * x[c];
}
