import type { ModelSpec } from "../../arch/index.js";
import type { LoadModelOptions } from "../loadOptions.js";
import type { TensorSource } from "../tensorRows.js";
import { placeExperts } from "./expertPlacement.js";
import { holdsAllNeurons } from "./holdsAll.js";
import { placeOffload } from "./placement.js";

/** Names of the tensors that are not read when such a model is opened: what their bundles hold is read as it is needed. */
export function leftInFile(
  source: Pick<TensorSource, "tensors">,
  spec: ModelSpec,
  options: Pick<LoadModelOptions, "weights"> & Required<Pick<LoadModelOptions, "offload">>,
): Set<string> {
  const { file, predictors } = options.offload;
  const { shape } = file;
  const holdsDown = holdsAllNeurons(source, spec, options);
  const maps =
    shape.layout === "experts"
      ? placeExperts(spec, shape.weights).streams.flatMap(({ mixture }) =>
          mixture.experts.flatMap(({ steps }) => steps.flatMap((step) => (step.do === "linear" ? step.maps : []))),
        )
      : placeOffload(spec, shape).streams.flatMap(({ mlp: { first, gate, down } }) =>
          [...first.maps, ...(holdsDown ? [] : down.maps)].filter(
            ({ map }) => shape.layout !== "neurons" || map !== gate || predictors !== undefined,
          ),
        );
  return new Set(maps.map(({ map }) => map.weight.tensor));
}
