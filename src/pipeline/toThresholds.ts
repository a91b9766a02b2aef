import type { ActivationSparsity } from "../io/index.js";
import type { ActivationThresholds } from "../model/index.js";

/** The thresholds a model runs with, from the record that lies beside its weights. */
export function toThresholds({ layers }: ActivationSparsity): ActivationThresholds {
  return {
    maps: layers.map(({ maps }) =>
      Object.fromEntries(Object.entries(maps).map(([role, { threshold }]) => [role, threshold])),
    ),
    ...(layers.some(({ gate }) => gate !== undefined) && { gate: layers.map(({ gate }) => gate?.threshold ?? 0) }),
  };
}
