import { expect, test } from "vitest";
import { readModelSpec } from "../arch/index.js";
import type { Activation } from "../kernels/index.js";
import type { Model } from "../model/index.js";
import { RealisedSparsity } from "./realisedSparsity.js";

/** Rows of 4 columns, which the stand-in backend below reads. */
interface Values extends Activation {
  values: Float32Array;
}

function activation(values: Float32Array): Values {
  const columns = () => {
    throw new Error("not used");
  };
  const rowRange = (start: number, count: number) => activation(values.subarray(start * 4, (start + count) * 4));
  return { values, rows: values.length / 4, cols: 4, columns, rowRange, reshape: columns };
}

const spec = readModelSpec(
  {
    model_type: "llama",
    vocab_size: 8,
    hidden_size: 4,
    intermediate_size: 12,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
  },
  "config.json",
);
const model = { config: { spec }, backend: { read: async (x: Values) => x.values } } as unknown as Model;
const thresholds = (value: number) => ({
  maps: [
    { q_proj: value, k_proj: value, v_proj: value, o_proj: value, gate_proj: value, up_proj: value, down_proj: value },
  ],
});

test("counts |x| ≤ t from the first sparse row on, weighted by the weights of each map", async () => {
  const values = Float32Array.of(0, 0, 0, 0, 0, 0.5, -0.5, 1, 0.25, -2, 3, 4);
  const counted = new RealisedSparsity(model, thresholds(0.5), 1);
  for (const site of ["attentionInput", "mlpHidden"]) {
    await counted.tap.onActivation(0, site, activation(values));
  }
  // Weights: q 16, k and v 8 each, o 16, gate, up and down 48 each; half of the inputs of q, k, v and down.
  expect(counted.sparsity).toBe((0.5 * (16 + 8 + 8 + 48)) / (16 + 8 + 8 + 16 + 3 * 48));
});

test("a threshold of 0 drops exact zeros; rows that are all dense count nothing", async () => {
  const zeros = Float32Array.of(0, 0, 1, 2);
  const counted = new RealisedSparsity(model, thresholds(0), 0);
  for (const site of counted.tap.sites) await counted.tap.onActivation(0, site, activation(zeros));
  expect(counted.sparsity).toBe(0.5);

  const dense = new RealisedSparsity(model, thresholds(9), 1);
  for (const site of dense.tap.sites) await dense.tap.onActivation(0, site, activation(zeros));
  expect(dense.sparsity).toBe(0);
});
