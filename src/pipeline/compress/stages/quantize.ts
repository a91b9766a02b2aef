import { type AnyOptions, type QuantizeMethod, quantizeMethods } from "../../../compress/index.js";
import { type TapSite, tapSites } from "../../../model/index.js";
import { consumersOf, foldable, foldFactors } from "./fold.js";
import { inputOf, layerOf, measureChange, type StageContext, type StageHandler } from "./stage.js";

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
      const result = method.quantize(layerOf(matrix), input, options, ones);
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
  for (const site of Object.keys(tapSites) as TapSite[]) {
    const consumers = consumersOf(block, site).filter((matrix) => targets.includes(matrix));
    if (consumers.length === 0 || !foldable(block, site)) continue;
    await context.breathe();
    const input = statistics.get(site)!;
    const factors = method.factors!(consumers.map(layerOf), input, options);
    statistics.set(site, foldFactors(block, site, factors, input));
  }
  return { ...context, statistics };
}
