import * as z from "zod/mini";
import type { Layer, PruneMethod, PruneResult } from "../contract.js";
import { layerFactor } from "../hessian.js";
import { removeColumns } from "../leastSquares.js";
import { type InverseFactor, inverseDiagonal } from "../linalg/index.js";
import type { Pattern } from "../pattern.js";
import { GridMatrix, gridOptions } from "../quantize/grid.js";
import { finishedWeight, scopeFor, workingCopy } from "../score.js";
import { countings, selectMask } from "../select.js";
import { compensatedSweep } from "../sweep.js";

const options = z.strictObject({
  blockSize: z
    ._default(z.int().check(z.gte(1), z.lte(4096)), 128)
    .check(z.describe("columns whose mask is chosen together")),
  damping: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.01)
    .check(z.describe("share of the mean curvature added to the diagonal")),
  counting: z._default(z.enum(countings), "exact").check(z.describe("threshold: one more zero per panel, and ties")),
  quantize: z.optional(z.strictObject(gridOptions)).check(z.describe("round kept weights in the same sweep")),
});
type Options = z.output<typeof options>;

/**
 * Columns are frozen from left to right; what pruning a column breaks, the columns to its right repair with the inverse
 * Hessian of the layer's inputs. The mask of a panel of columns is chosen when the sweep reaches it, from w²/[H⁻¹]; that
 * of keep:group when it reaches the group. Whole columns are removed at once with their exact least-squares repair.
 */
export const method: PruneMethod<Options> = {
  id: "sparsegpt",
  title: "SparseGPT",
  paper: "Frantar, Alistarh 2023, arXiv:2301.00774",
  options,
  patterns: {
    unstructured: ["tensor", "row"],
    nm: ["row"],
    block: ["tensor", "row"],
    columns: ["tensor"],
    neurons: ["tensor", "global"],
    heads: ["tensor", "global"],
  },
  needs: () => ["gram"],
  problems(_shape, pattern, { blockSize }) {
    const width = pattern.type === "nm" && pattern.along !== "column" ? pattern.group : undefined;
    const unit = pattern.type === "block" ? pattern.cols : width;
    return unit !== undefined && blockSize % unit !== 0 ? [`blockSize ${blockSize} is not a multiple of ${unit}`] : [];
  },
  score(layer, statistics, { damping }) {
    const inverse = inverseDiagonal(layerFactor(statistics, damping), layer.cols);
    return layer.weight.map((w, i) => Math.abs(w) / Math.sqrt(2 * inverse[i % layer.cols]));
  },
  prune(layer, statistics, pattern, options) {
    const factor = layerFactor(statistics, options.damping);
    return pattern.type === "columns"
      ? pruneColumns(layer, factor, pattern)
      : pruneEntries(layer, factor, pattern, options);
  },
};

function pruneEntries(layer: Layer, factor: InverseFactor, pattern: Pattern, options: Options): PruneResult {
  const { rows, cols } = layer;
  const { blockSize, counting } = options;
  const scope = scopeFor(method, pattern);
  const { weights, keep } = workingCopy(layer, factor.dead);

  const choosePanel = (current: Float64Array, mask: Uint8Array, start: number, end: number) => {
    const width = end - start;
    const scores = new Float32Array(rows * width);
    for (let c = start; c < end; c++) {
      const u = factor.transposedU[c * cols + c];
      for (let r = 0; r < rows; r++) {
        const at = r * cols + c;
        scores[r * width + c - start] = mask[at] === 1 ? Math.abs(current[at]) / u : 0;
      }
    }
    const chosen = selectMask(scores, rows, width, pattern, scope, counting);
    for (let r = 0; r < rows; r++) for (let i = 0; i < width; i++) mask[r * cols + start + i] &= chosen[r * width + i];
  };

  const grid = options.quantize === undefined ? undefined : new GridMatrix(rows, cols, options.quantize);
  grid?.fitAll(weights);
  const loss = compensatedSweep(weights, keep, rows, cols, factor, {
    blockSize,
    ...(pattern.type === "nm" && pattern.along !== "column" ? { groups: pattern } : { choosePanel }),
    ...(grid === undefined ? {} : { quantizer: { reach() {}, round: (r, c, value) => grid.round(r, c, value) } }),
  });
  const result: PruneResult = { weight: finishedWeight(weights, keep), mask: keep, loss };
  if (grid !== undefined) result.quantized = grid.codesAndGrids();
  return result;
}

function pruneColumns(layer: Layer, factor: InverseFactor, pattern: Pattern): PruneResult {
  const { rows, cols } = layer;
  const { weights, keep } = workingCopy(layer, factor.dead);
  const inverse = inverseDiagonal(factor, cols);
  const scores = Float32Array.from(weights, (w, i) => Math.abs(w) / Math.sqrt(inverse[i % cols]));
  const chosen = selectMask(scores, rows, cols, pattern, scopeFor(method, pattern));
  const removed = Array.from({ length: cols }, (_, c) => c).filter((c) => chosen[c] === 0);
  const loss = removeColumns(weights, rows, cols, factor, removed);
  for (let i = 0; i < keep.length; i++) keep[i] &= chosen[i];
  return { weight: finishedWeight(weights, keep), mask: keep, loss };
}
