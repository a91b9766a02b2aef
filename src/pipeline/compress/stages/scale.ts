import { scaleMethods } from "../../../compress/index.js";
import { blockInputs } from "../block.js";
import { foldFactors, statisticsOf } from "./fold.js";
import { linearOf, type StageHandler } from "./stage.js";

/** Moves outliers of inputs into weights. All matrices that read an input are scaled, whichever of them are targets. */
export const scale: StageHandler<"scale"> = {
  approximates: false,
  async needs({ stage, options }) {
    return (await scaleMethods[stage.method]()).method.needs(options);
  },
  async apply({ stage, options, targets, block, statistics, breathe }) {
    const { method } = await scaleMethods[stage.method]();
    for (const input of blockInputs(block)) {
      if (!input.readers.some((matrix) => targets.includes(matrix))) continue;
      await breathe();
      const factors = method.factors(input.readers.map(linearOf), statisticsOf(input, statistics), options);
      foldFactors(block, input, factors, statistics);
    }
  },
};
