import type { ActivationSparsity } from "../io/index.js";
import { type ActivationThresholds, type Projection, projections } from "../model/index.js";

/** The thresholds a model runs with, from the record that lies beside its weights. */
export function toThresholds({ method, layers }: ActivationSparsity): ActivationThresholds {
  return {
    projections: layers.map(
      (layer) =>
        Object.fromEntries(projections.map((name) => [name, layer.maps[name]?.threshold ?? 0])) as Record<
          Projection,
          number
        >,
    ),
    ...(method === "cats" && { gate: layers.map((layer) => layer.gate?.threshold ?? 0) }),
  };
}
