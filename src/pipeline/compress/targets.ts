import { findStep, type ModelConfig } from "../../arch/index.js";
import { inputsOf, placesOf } from "../../arch/internal.js";
import type { TargetMatrix } from "../../compress/index.js";
import { isWhole } from "../../io/internal.js";
import { matrixKey, matrixNames } from "./block.js";

/** The matrices of all blocks as recipes see them. */
export function targetMatrices({ spec }: Pick<ModelConfig, "spec">): TargetMatrix[] {
  return spec.blocks.flatMap((block, layer) => {
    const inputOf = new Map(inputsOf(block).flatMap((input) => input.readers.map(({ map }) => [map, input] as const)));
    const attend = findStep(block, "attend");
    return placesOf(block).map((place): TargetMatrix => {
      const { map, step, expert } = place;
      const { maker } = inputOf.get(map)!;
      const into = step.maps.find((made) => made.map === map)!.into;
      return {
        key: matrixKey(layer, map.id),
        layer,
        role: map.role,
        names: matrixNames(layer, place),
        rows: map.rows,
        cols: map.cols,
        ...(expert !== undefined && { expert }),
        ...(!isWhole(map.weight) && { inPart: true }),
        ...(map.units && { units: map.units }),
        ...((into === attend?.k || into === attend?.v) && { keysOrValues: true }),
        ...(maker && { inputsFrom: "norm" in maker ? "norm" : maker.ofValueHeads ? "values" : "map" }),
      };
    });
  });
}
