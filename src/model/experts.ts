import type { ActivationFunction } from "../core/index.js";
import type { Activation, Backend, RoutedSlots, Routing } from "../kernels/index.js";
import type { Scratch } from "./scratch.js";
import type { LayerThresholds } from "./thresholds.js";
import type { TapSite } from "./types.js";
import type { ExpertWeights } from "./weights.js";

export interface ExpertPass {
  activation: ActivationFunction;
  thresholds?: LayerThresholds;
  /** Told what enters the experts. @param slots whose rows those are */
  watch(site: TapSite, activation: Activation, slots: () => Promise<RoutedSlots>): Promise<void>;
}

/**
 * The MLP of a mixture of experts, x += Σ weight · expert(normed) over the experts that each row is sent to. Only their
 * weights are read.
 * @param x, normed [n, hiddenSize]
 * @param s scratch for n rows
 */
export async function addMixture(
  b: Backend,
  x: Activation,
  normed: Activation,
  { router, options, experts }: ExpertWeights,
  s: Scratch,
  { activation, thresholds, watch }: ExpertPass,
): Promise<void> {
  b.linear(s.routerLogits!, normed, router);
  const routing: Routing = await b.route(s.routerLogits!, options);
  const slots = () => b.readRouting(routing);
  await watch("mlpInput", normed, slots);
  b.expertLinear(s.gateUp, normed, experts.gateUp, routing, { from: "rows", thresholds: thresholds?.gateUp });
  await watch("mlpGate", s.gate, slots);
  b.gatedActivation(s.gate, s.gate, s.up, activation, { gateThreshold: thresholds?.gate });
  await watch("mlpHidden", s.gate, slots);
  b.expertLinear(s.expertOut!, s.gate, experts.down, routing, { from: "slots", thresholds: thresholds?.down });
  b.addExperts(x, s.expertOut!, routing);
}
