import { scaleMethods } from "../../../compress/index.js";
import { type TapSite, tapSites } from "../../../model/index.js";
import { consumersOf, foldFactors } from "./fold.js";
import { layerOf, type StageHandler } from "./stage.js";

/** Moves outliers of inputs into weights. All matrices that read an input are scaled, whichever of them are targets. */
export const scale: StageHandler<"scale"> = {
  approximates: false,
  async needs({ stage, options }) {
    return (await scaleMethods[stage.method]()).method.needs(options);
  },
  async apply({ stage, options, targets, block, statistics, breathe }) {
    const { method } = await scaleMethods[stage.method]();
    for (const site of Object.keys(tapSites) as TapSite[]) {
      if (!consumersOf(block, site).some((matrix) => targets.includes(matrix))) continue;
      await breathe();
      const input = statistics.get(site)!;
      foldFactors(block, site, method.factors(consumersOf(block, site).map(layerOf), input, options), input);
    }
  },
};
