import * as z from "zod/mini";
import type { Layer, QuantizeMethod, QuantizeResult } from "../contract.js";
import { quadraticTrace } from "../linalg/index.js";
import { everyNthRow, gram64 } from "../reconstruction.js";
import type { InputStatistics } from "../statistics.js";
import { divideColumns, multiplyColumns } from "./fold.js";
import { GridMatrix, gridOptions, rangeOf } from "./grid.js";

const options = z.strictObject({
  ...gridOptions,
  ratios: z
    ._default(z.int().check(z.gte(1), z.lte(100)), 20)
    .check(z.describe("exponents tried, from 0 in equal steps below 1")),
  clip: z
    ._default(z.boolean(), true)
    .check(z.describe("then shrink each group's range, by up to half, to the least output error")),
});
type Options = z.output<typeof options>;

const clipSteps = 20;
/** Rows of each matrix that the exponents are judged by: every row sees the same inputs. */
const judgedRows = 128;

/**
 * Weights of input channels that matter are made larger before rounding, so that they lose less: factors
 * s = mean|x|^ratio, with the ratio of least output error of all matrices that read the input. The error is measured
 * with the gram of the inputs, so over all calibration tokens, at up to 128 evenly spaced outputs of each matrix. `inputScales` are to be divided out of the input.
 */
export const method: QuantizeMethod<Options> = {
  id: "awq",
  title: "AWQ",
  paper: "Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han 2023, arXiv:2306.00978",
  options,
  needs: () => ["gram", "columnAbsMean"],
  multiplyAdds({ rows, cols }, { ratios, groupSize, clip }) {
    const judging = ratios * Math.min(rows, judgedRows) * cols * cols;
    return judging + (clip ? (rows * cols * clipSteps * (groupSize || cols)) / 2 : 0);
  },
  factors(consumers, statistics, options) {
    let best: Float32Array = new Float32Array(statistics.cols).fill(1);
    let bestError = Number.POSITIVE_INFINITY;
    const judged = consumers.map(sample);
    for (let i = 0; i < options.ratios; i++) {
      const factors = channelFactors(statistics.get("columnAbsMean"), i / options.ratios);
      const errors = judged.map(({ layer, share }) => outputError(layer, factors, statistics, options) * share);
      const error = errors.reduce((sum, one) => sum + one, 0);
      if (error < bestError) {
        bestError = error;
        best = factors;
      }
    }
    return best;
  },
  quantize(layer, statistics, options, factors = method.factors!([layer], statistics, options)) {
    const scaled = multiplyColumns(layer.weight, factors);
    const matrix = new GridMatrix(layer.rows, layer.cols, options);
    matrix.fitAll(scaled);
    if (options.clip) clipRanges(matrix, scaled, factors, statistics);
    matrix.roundAll(scaled);
    const result: QuantizeResult = matrix.result();
    return { ...result, weight: divideColumns(result.weight, factors), inputScales: factors };
  },
};

/** Some rows of a layer, and how many each stands for. */
function sample(layer: Layer): { layer: Layer; share: number } {
  const { weight, rows, cols } = layer;
  if (rows <= judgedRows) return { layer, share: 1 };
  return {
    layer: { weight: everyNthRow(weight, rows, cols, judgedRows), rows: judgedRows, cols },
    share: rows / judgedRows,
  };
}

/** max(mean|x|^ratio, 1e-4), scaled so that the largest and the smallest are each other's inverse. */
function channelFactors(absMean: Float64Array, ratio: number): Float32Array {
  const raw = absMean.map((a) => Math.max(a ** ratio, 1e-4));
  const middle = Math.sqrt(raw.reduce((a, b) => Math.max(a, b)) * raw.reduce((a, b) => Math.min(a, b)));
  return Float32Array.from(raw, (value) => value / middle);
}

/** Σ over tokens of ‖(Q(W·s)·s⁻¹ − W)·x‖². */
function outputError(layer: Layer, factors: Float32Array, statistics: InputStatistics, options: Options): number {
  const { weight, rows, cols } = layer;
  const scaled = multiplyColumns(weight, factors);
  const matrix = new GridMatrix(rows, cols, options);
  matrix.fitAll(scaled);
  matrix.roundAll(scaled);
  const back = matrix.dequantized();
  const difference = Float64Array.from(back, (value, i) => value / factors[i % cols] - weight[i]);
  return quadraticTrace(difference, gram64(statistics), rows, cols);
}

/** Gives every group the range, of those shrunk by 0 … ½, with the least output error of the group by itself. */
function clipRanges(
  matrix: GridMatrix,
  scaled: Float32Array,
  factors: Float32Array,
  statistics: InputStatistics,
): void {
  const { rows, cols, groupSize } = matrix;
  const gram = gram64(statistics);
  const errors = new Float64Array(groupSize);
  for (let row = 0; row < rows; row++) {
    for (let start = 0; start < cols; start += groupSize) {
      const length = Math.min(groupSize, cols - start);
      const group = scaled.subarray(row * cols + start, row * cols + start + length);
      const { min, max } = rangeOf(group);
      let best = 1;
      let bestError = Number.POSITIVE_INFINITY;
      for (let step = 0; step < clipSteps; step++) {
        const share = 1 - (0.5 * step) / clipSteps;
        matrix.setGrid(row, start, { min: min * share, max: max * share });
        for (let i = 0; i < length; i++) {
          errors[i] = (matrix.round(row, start + i, group[i]) - group[i]) / factors[start + i];
        }
        let total = 0;
        for (let i = 0; i < length; i++) {
          const at = (start + i) * cols + start;
          let sum = (gram[at + i] * errors[i]) / 2;
          for (let j = 0; j < i; j++) sum += gram[at + j] * errors[j];
          total += 2 * errors[i] * sum;
        }
        if (total < bestError) {
          bestError = total;
          best = share;
        }
      }
      matrix.setGrid(row, start, { min: min * best, max: max * best });
    }
  }
}
