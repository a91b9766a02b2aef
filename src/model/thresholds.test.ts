import { expect, test } from "vitest";
import { parseModelConfig } from "../arch/index.js";
import { layerThresholds } from "./thresholds.js";
import { type Projection, projections } from "./types.js";

const raw = {
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
};
const config = parseModelConfig(raw, "config.json");
const record = (value: (index: number) => number) =>
  Object.fromEntries(projections.map((name, index) => [name, value(index)])) as Record<Projection, number>;

test("thresholds stand in the order of the stacked matrices", () => {
  expect(layerThresholds({ projections: [record((i) => i + 1)] }, config)).toEqual([
    { qkv: [1, 2, 3], output: [4], gateUp: [5, 6], down: [7], gate: undefined },
  ]);
});

test("a stack with any threshold above 0 is sparse, one without stays dense", () => {
  expect(layerThresholds({ projections: [record((i) => (i === 1 ? 0.5 : 0))] }, config)).toEqual([
    { qkv: [0, 0.5, 0], output: undefined, gateUp: undefined, down: undefined, gate: undefined },
  ]);
});

test("where hidden values are exactly 0, behind a gate threshold or a ReLU, down skips them", () => {
  const zeros = { projections: [record(() => 0)] };
  expect(layerThresholds({ ...zeros, gate: [0.3] }, config)).toMatchObject([{ down: [0], gate: 0.3 }]);
  for (const activation of ["relu", "relu2"] as const) {
    expect(layerThresholds(zeros, { ...config, activation })).toMatchObject([{ down: [0], gate: undefined }]);
  }
});
