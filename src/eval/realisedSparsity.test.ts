import { expect, test } from "vitest";
import { blockSparsity, projectionCosts } from "../compress/index.js";
import type { Activation } from "../kernels/index.js";
import { type Model, type Projection, projections, type TapSite } from "../model/index.js";
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
  return { values, rows: values.length / 4, cols: 4, columns, rowRange };
}

const config = { layers: 1, hiddenSize: 4, intermediateSize: 12, queryHeads: 2, kvHeads: 1, headDim: 2 };
const model = { config, backend: { read: async (x: Values) => x.values } } as unknown as Model;
const thresholds = (value: number) => ({
  projections: [Object.fromEntries(projections.map((name) => [name, value])) as Record<Projection, number>],
});

test("counts |x| ≤ t from the first sparse row on, weighted by what each projection weighs", async () => {
  const values = Float32Array.of(0, 0, 0, 0, 0, 0.5, -0.5, 1, 0.25, -2, 3, 4);
  const shares = { q_proj: 0.5, k_proj: 0.5, v_proj: 0.5, o_proj: 0, gate_proj: 0, up_proj: 0, down_proj: 0.5 };
  const counted = new RealisedSparsity(model, thresholds(0.5), 1);
  for (const site of ["attentionInput", "mlpHidden"] satisfies TapSite[]) {
    await counted.tap.onActivation(0, site, activation(values));
  }
  expect(counted.sparsity).toBe(blockSparsity(projectionCosts(config), shares));
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
