import {
  type LowRankFactors,
  lowRankMethods,
  type PruneMethod,
  pruneMethods,
  type Spectrum,
} from "../../../compress/index.js";
import { productOf, rankForRatio, residualOf, shareRanks } from "../../../compress/internal.js";
import type { BlockMatrix } from "../block.js";
import { inputOf, linearOf, measureChange, type StageContext, type StageHandler } from "./stage.js";

/** Factors of lower rank in place of matrices, with a sparse remainder if the recipe wants one. */
export const lowRank: StageHandler<"lowRank"> = {
  approximates: true,
  async needs({ stage, options }) {
    const { method } = await lowRankMethods[stage.method]();
    const residual = await residualMethod(stage);
    return [...new Set([...method.needs(options), ...(residual?.method.needs(residual.options) ?? [])])];
  },
  async apply(context) {
    const { stage, options, targets } = context;
    const { method } = await lowRankMethods[stage.method]();
    const residual = await residualMethod(stage);
    const spectra: Spectrum[] = [];
    for (const matrix of targets) {
      await context.breathe();
      spectra.push(method.decompose(linearOf(matrix), inputOf(context, matrix), options));
    }
    const ranks = ranksOf(stage, targets, spectra);
    for (const [t, matrix] of targets.entries()) {
      const rank = ranks[t];
      if (rank === "dense") continue;
      await context.breathe();
      const factors = spectra[t].factors(rank);
      const rest = residual === undefined ? undefined : sparseRest(context, matrix, factors, residual);
      const product = productOf(matrix, factors);
      measureChange(context, matrix, rest === undefined ? product : product.map((value, i) => value + rest[i]));
      matrix.lowRank = factors;
      matrix.weight = rest ?? new Float32Array(matrix.weight.length);
    }
  },
};

type LowRankStage = StageContext<"lowRank">["stage"];

async function residualMethod({ residual }: LowRankStage) {
  if (residual === undefined) return undefined;
  const { method } = await pruneMethods[residual.method]();
  return { method: method as PruneMethod, options: method.options.parse(residual.options), pattern: residual.pattern };
}

function sparseRest(
  context: StageContext,
  matrix: BlockMatrix,
  factors: LowRankFactors,
  { method, options, pattern }: NonNullable<Awaited<ReturnType<typeof residualMethod>>>,
): Float32Array {
  return method.prune(residualOf(linearOf(matrix), factors), inputOf(context, matrix), pattern, options).weight;
}

function ranksOf(stage: LowRankStage, targets: readonly BlockMatrix[], spectra: readonly Spectrum[]) {
  const { rank, keepRatio, align, shareWithinBlock } = stage;
  if (rank !== undefined) return targets.map(() => rank);
  if (!shareWithinBlock) return targets.map((matrix) => rankForRatio(matrix, keepRatio!, align));
  const matrices = targets.map((shape, t) => ({ shape, spectrum: spectra[t] }));
  const weights = targets.reduce((sum, { rows, cols }) => sum + rows * cols, 0);
  return shareRanks(matrices, Math.floor(weights * keepRatio!), align);
}
