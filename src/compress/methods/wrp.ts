import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { PruneMethod, Shape } from "../contract.js";
import { shapeProblems } from "../pattern.js";
import { maskedCopy, scopeFor } from "../score.js";
import { pruneSmallest, selectMask } from "../select.js";
import { wandaScores } from "./wanda.js";

const options = z.strictObject({
  recover: z._default(z.enum(["entries", "blocks"]), "entries").check(z.describe("what goes into the second matrix")),
  alpha: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.25)
    .check(z.describe("entries: share of a row's highest scores that no pattern may take; about α³ − α⁴/2 come back")),
  blockSize: z._default(z.int().check(z.gte(1), z.lte(1024)), 64).check(z.describe("blocks: edge of a square block")),
  blocksPerRow: z
    ._default(z.int().check(z.gte(0), z.lte(65_536)), 8)
    .check(z.describe("blocks: how many per row of blocks")),
});
type Options = z.output<typeof options>;

/**
 * keep:group by Wanda scores, after which the pruned weights that matter most in their row return in a second, very
 * sparse matrix: y = W_pattern·x + W_recovered·x. Kept weights are not touched.
 */
export const method: PruneMethod<Options> = {
  id: "wrp",
  title: "Weight Recover Prune",
  paper: "Tan, Zhang, Wei 2024, ACL 2024 long papers, pp. 6433-6443",
  options,
  patterns: { nm: ["row"] },
  needs: () => ["columnSquares"],
  problems: recoveryProblems,
  prune(layer, statistics, pattern, options) {
    const { rows, cols } = layer;
    const problems = recoveryProblems(layer, pattern, options);
    if (problems.length > 0) throw new UsageError(problems.join("; "));
    const scores = wandaScores(layer, statistics);
    const mask = selectMask(scores, rows, cols, pattern, scopeFor(method, pattern));
    const wanted =
      options.recover === "entries" ? topOfRows(scores, cols, options.alpha) : topBlocks(scores, mask, layer, options);
    const recovered = new Uint8Array(mask.length);
    for (let i = 0; i < mask.length; i++) {
      if (mask[i] === 1 || wanted[i] === 0 || layer.mask?.[i] === 0) continue;
      recovered[i] = 1;
      mask[i] = 1;
    }
    return { ...maskedCopy(layer, mask), recovered };
  },
};

function recoveryProblems(shape: Shape, _pattern: unknown, { recover, blockSize }: Options): string[] {
  if (recover === "entries") return [];
  return shapeProblems(shape.rows, shape.cols, { type: "block", rows: blockSize, cols: blockSize, sparsity: 0 });
}

/** 1 at the ⌊cols · α⌋ highest scores of every row. */
function topOfRows(scores: Float32Array, cols: number, alpha: number): Uint8Array {
  const top = new Uint8Array(scores.length).fill(1);
  const others = cols - Math.floor(cols * alpha + 1e-6);
  for (let start = 0; start < scores.length; start += cols) pruneSmallest(scores, start, cols, others, top);
  return top;
}

/** 1 in the blocks of each row of blocks that hold the highest sums of pruned scores. */
function topBlocks(scores: Float32Array, mask: Uint8Array, shape: Shape, options: Options): Uint8Array {
  const { rows, cols } = shape;
  const { blockSize, blocksPerRow } = options;
  const across = cols / blockSize;
  const blockOf = (i: number) => Math.floor(i / cols / blockSize) * across + Math.floor((i % cols) / blockSize);
  const sums = new Float32Array((rows / blockSize) * across);
  for (let i = 0; i < scores.length; i++) if (mask[i] === 0) sums[blockOf(i)] += scores[i];
  const top = new Uint8Array(sums.length).fill(1);
  for (let start = 0; start < sums.length; start += across) {
    pruneSmallest(sums, start, across, Math.max(0, across - blocksPerRow), top);
  }
  return mask.map((_, i) => top[blockOf(i)]);
}
