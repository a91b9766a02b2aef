import { expect, test } from "vitest";
import { linearsOf, readModelSpec, stepsOf } from "../arch/index.js";
import { blockThresholds } from "./thresholds.js";
import type { ActivationThresholds } from "./types.js";

const raw = {
  model_type: "llama",
  vocab_size: 8,
  hidden_size: 8,
  intermediate_size: 8,
  num_hidden_layers: 1,
  num_attention_heads: 2,
};
const specOf = (fields: object = {}) => readModelSpec({ ...raw, ...fields }, "config.json");
const record = (value: (index: number) => number) =>
  Object.fromEntries(linearsOf(specOf().blocks[0]).map(({ role }, index) => [role, value(index)]));

/** The thresholds of the linear steps of the only block, by the first map of each. */
function arranged(thresholds: ActivationThresholds, fields?: object) {
  const spec = specOf(fields);
  const [{ linear }] = blockThresholds(thresholds, spec);
  const steps = [...stepsOf(spec.blocks[0])].flatMap((step) => (step.do === "linear" ? [step] : []));
  return Object.fromEntries(steps.map((step) => [step.maps[0].map.role, linear.get(step)]));
}

test("thresholds stand in the order of the stacked matrices", () => {
  expect(arranged({ maps: [record((i) => i + 1)] })).toEqual({
    q_proj: [1, 2, 3],
    o_proj: [4],
    gate_proj: [5, 6],
    down_proj: [7],
  });
});

test("a stack with any threshold above 0 is sparse, one without stays dense; those left out are 0", () => {
  expect(arranged({ maps: [{ k_proj: 0.5 }] })).toEqual({ q_proj: [0, 0.5, 0] });
});

test("where hidden values are exactly 0, behind a gate threshold or a ReLU, down skips them", () => {
  const zeros = { maps: [record(() => 0)] };
  expect(arranged({ ...zeros, gate: [0.3] })).toEqual({ down_proj: [0] });
  for (const hidden_act of ["relu", "relu2"]) expect(arranged(zeros, { hidden_act })).toEqual({ down_proj: [0] });
});

test("wrong layers, maps and values are refused", () => {
  const refused = (thresholds: ActivationThresholds) => () => blockThresholds(thresholds, specOf());
  expect(refused({ maps: [] })).toThrow(/thresholds of 0 layers/);
  expect(refused({ maps: [{ w1: 0 }] })).toThrow(/layer 0 has no linear map w1, only q_proj, k_proj/);
  expect(refused({ maps: [{ q_proj: Number.NaN }] })).toThrow(/layer 0: the threshold of q_proj is NaN/);
  expect(refused({ maps: [{}], gate: [-1] })).toThrow(/the gate threshold is -1/);
});
