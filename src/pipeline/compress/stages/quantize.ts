import { type AnyOptions, type QuantizeMethod, quantizeMethods } from "../../../compress/index.js";
import { blockInputs } from "../block.js";
import { foldable, foldFactors, statisticsOf } from "./fold.js";
import { inputOf, linearOf, measureChange, type StageContext, type StageHandler } from "./stage.js";

/** Rounds weights to grids. Factors of input channels, where the method has some, are folded in first. */
export const quantize: StageHandler<"quantize"> = {
  approximates: true,
  async needs({ stage, options }) {
    return (await quantizeMethods[stage.method]()).method.needs(options);
  },
  async apply(context) {
    const { stage, options, targets } = context;
    const { method } = await quantizeMethods[stage.method]();
    const scaled = method.factors === undefined ? context : await foldAll(context, method, options);
    for (const matrix of targets) {
      await context.breathe();
      const input = inputOf(scaled, matrix);
      const ones = method.factors && new Float32Array(matrix.cols).fill(1);
      const result = method.quantize(linearOf(matrix), input, options, ones);
      measureChange(scaled, matrix, result.weight);
      matrix.weight = result.weight;
      // Columns kept outside the codes make the matrix an ordinary one.
      matrix.grid = (result.outlierColumns?.length ?? 0) > 0 ? undefined : result;
    }
  },
};

/** Chooses and folds the factors of every site that feeds a target. */
async function foldAll(
  context: StageContext<"quantize">,
  method: QuantizeMethod,
  options: AnyOptions,
): Promise<StageContext<"quantize">> {
  const { block, targets } = context;
  const statistics = new Map(context.statistics);
  for (const input of blockInputs(block)) {
    const consumers = input.readers.filter((matrix) => targets.includes(matrix));
    if (consumers.length === 0 || !foldable(block, input)) continue;
    await context.breathe();
    const factors = method.factors!(consumers.map(linearOf), statisticsOf(input, statistics), options);
    for (const [key, after] of foldFactors(block, input, factors, statistics)) statistics.set(key, after);
  }
  return { ...context, statistics };
}
