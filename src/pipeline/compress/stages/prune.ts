import { type Pattern, type PruneMethod, pruneMethods } from "../../../compress/index.js";
import { pruneUnits } from "./pruneUnits.js";
import { inputOf, linearOf, measureChange, type StageContext, type StageHandler } from "./stage.js";

/** Zeros in single matrices, or whole neurons and heads. */
export const prune: StageHandler<"prune"> = {
  approximates: true,
  async needs({ stage, options }) {
    return (await pruneMethods[stage.method]()).method.needs(options);
  },
  async apply(context) {
    const { stage, options, targets } = context;
    const { method } = await pruneMethods[stage.method]();
    if (stage.pattern.type === "neurons" || stage.pattern.type === "heads") return pruneUnits(context, method);
    for (const matrix of targets) {
      await context.breathe();
      const pattern = patternOf(context, matrix.key, matrix.weight.length);
      const result = (method as PruneMethod).prune(linearOf(matrix), inputOf(context, matrix), pattern, options);
      measureChange(context, matrix, result.weight);
      matrix.weight = result.weight;
      matrix.mask = result.mask;
      if (result.quantized !== undefined) matrix.grid = result.quantized;
    }
  },
};

/** The stage's pattern; of a global one, what fell to this matrix. */
function patternOf({ stage: { pattern }, budget }: StageContext<"prune">, id: string, entries: number): Pattern {
  const zeros = budget?.zeros?.[id];
  return zeros === undefined ? pattern : { type: "unstructured", sparsity: zeros / entries, scope: "tensor" };
}
