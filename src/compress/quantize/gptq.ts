import * as z from "zod/mini";
import type { QuantizeMethod } from "../contract.js";
import { layerFactor } from "../hessian.js";
import { inverseFactor } from "../linalg/index.js";
import { workingCopy } from "../score.js";
import type { InputStatistics } from "../statistics.js";
import { compensatedSweep } from "../sweep.js";
import { GridMatrix, gridOptions } from "./grid.js";

const options = z.strictObject({
  ...gridOptions,
  blockSize: z
    ._default(z.int().check(z.gte(1), z.lte(4096)), 128)
    .check(z.describe("columns between updates of the rest")),
  damping: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.01)
    .check(z.describe("share of the mean curvature added to the diagonal")),
  actOrder: z
    ._default(z.boolean(), false)
    .check(z.describe("round the inputs with most energy first; grids are then those of the dense weights")),
});

/**
 * SparseGPT's sweep without a mask: each column is rounded and the columns after it make good for its error. A group's
 * grid is fitted when the sweep reaches it.
 */
export const method: QuantizeMethod<z.output<typeof options>> = {
  id: "gptq",
  title: "GPTQ",
  paper: "Frantar, Ashkboos, Hoefler, Alistarh 2022, arXiv:2210.17323",
  options,
  needs: () => ["gram"],
  quantize(layer, statistics, options) {
    const { rows, cols } = layer;
    const { blockSize, damping, actOrder } = options;
    const order = actOrder ? byEnergy(statistics) : Int32Array.from({ length: cols }, (_, c) => c);
    const factor = actOrder ? permutedFactor(statistics, order, damping) : layerFactor(statistics, damping);
    const mask =
      layer.mask === undefined ? {} : { mask: permuteColumns(layer.mask, order, new Uint8Array(rows * cols)) };
    const { weights, keep } = workingCopy(
      { weight: permuteColumns(layer.weight, order, new Float32Array(rows * cols)), rows, cols, ...mask },
      factor.dead,
    );
    const matrix = new GridMatrix(rows, cols, options);
    if (actOrder) matrix.fitAll(layer.weight);
    const loss = compensatedSweep(weights, keep, rows, cols, factor, {
      blockSize,
      quantizer: {
        reach(row, col, current) {
          if (!actOrder && col % matrix.groupSize === 0) matrix.fit(row, col, current);
        },
        round: (row, col, value) => matrix.round(row, order[col], value),
      },
    });
    return { ...matrix.result(), loss };
  },
};

/** Columns by descending Σ x²; equal ones in their order. */
function byEnergy(statistics: InputStatistics): Int32Array {
  const energy = statistics.get("columnSquares");
  return Int32Array.from(energy.keys()).sort((a, b) => energy[b] - energy[a] || a - b);
}

function permutedFactor(statistics: InputStatistics, order: Int32Array, damping: number) {
  return statistics.derive(`inverseFactor ${damping} by energy`, () => {
    const gram = statistics.get("gram");
    const n = order.length;
    const permuted = new Float64Array(n * n);
    for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) permuted[i * n + j] = gram[order[i] * n + order[j]];
    return inverseFactor(permuted, n, 2 / Math.max(1, statistics.tokens), damping);
  });
}

/** out[r, c] = from[r, order[c]]. */
function permuteColumns<A extends Float32Array | Uint8Array>(from: A, order: Int32Array, out: A): A {
  const cols = order.length;
  for (let i = 0; i < out.length; i++) out[i] = from[i - (i % cols) + order[i % cols]];
  return out;
}
