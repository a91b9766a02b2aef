import type { ModelSpec } from "../../arch/index.js";
import type { LoadModelOptions } from "../loadOptions.js";
import { placeExperts } from "./expertPlacement.js";
import { placeOffload } from "./placement.js";

/** Names of the tensors that are not read when such a model is opened: what their bundles hold is read as it is needed. */
export function leftInFile(
  spec: ModelSpec,
  { file, predictors }: NonNullable<LoadModelOptions["offload"]>,
): Set<string> {
  const { shape } = file;
  const maps =
    shape.layout === "experts"
      ? placeExperts(spec, shape.weights).streams.flatMap(({ mixture }) =>
          mixture.experts.flatMap(({ steps }) => steps.flatMap((step) => (step.do === "linear" ? step.maps : []))),
        )
      : placeOffload(spec, shape).streams.flatMap(({ mlp: { first, gate, down } }) =>
          [...first.maps, ...down.maps].filter(
            ({ map }) => shape.layout !== "neurons" || map !== gate || predictors !== undefined,
          ),
        );
  return new Set(maps.map(({ map }) => map.weight.tensor));
}
