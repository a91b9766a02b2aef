import type { ModelConfig } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import { type ActivationThresholds, projections } from "./types.js";

/** Thresholds of one layer in the order of its stacked matrices; undefined where a product stays dense. */
export interface LayerThresholds {
  qkv?: readonly number[];
  output?: readonly number[];
  gateUp?: readonly number[];
  down?: readonly number[];
  gate?: number;
}

/** Arranges thresholds for the block, once per setting. @throws UsageError for wrong layers or values. */
export function layerThresholds(thresholds: ActivationThresholds, config: ModelConfig): LayerThresholds[] {
  const { projections: perLayer, gate } = thresholds;
  if (perLayer.length !== config.layers || (gate !== undefined && gate.length !== config.layers)) {
    throw new UsageError(`thresholds of ${perLayer.length} layers (gate: ${gate?.length}) for ${config.layers} layers`);
  }
  const valid = (value: number) => value >= 0 && Number.isFinite(value);
  const anyPositive = (values: readonly number[]) => (values.some((value) => value > 0) ? values : undefined);

  return perLayer.map((t, layer) => {
    const wrong = projections.find((name) => !valid(t[name]));
    if (wrong !== undefined) throw new UsageError(`layer ${layer}: the threshold of ${wrong} is ${t[wrong]}`);
    if (gate !== undefined && !valid(gate[layer])) {
      throw new UsageError(`layer ${layer}: the gate threshold is ${gate[layer]}`);
    }
    // Behind a ReLU or a gate threshold many hidden values are exactly 0: skipping those costs nothing.
    const exactZeros = gate !== undefined || config.activation === "relu" || config.activation === "relu2";
    return {
      qkv: anyPositive([t.q_proj, t.k_proj, t.v_proj]),
      output: anyPositive([t.o_proj]),
      gateUp: anyPositive([t.gate_proj, t.up_proj]),
      down: exactZeros ? [t.down_proj] : anyPositive([t.down_proj]),
      gate: gate?.[layer],
    };
  });
}
