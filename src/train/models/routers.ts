import type { BatchControl } from "../objective.js";
import { biasName, loadName, sparsityWeightName } from "./routerNames.js";

export interface BiasOptions {
  /** Those with mixtures. */
  layers: number;
  experts: number;
  /** Default 10⁻³. */
  speed?: number;
}

/**
 * Balancing without a loss (Wang et al. 2024, arXiv:2408.15664): the bias of an expert that had fewer tokens than the mean
 * rises by `speed`, that of one with more falls. It decides who is chosen, never how much a choice counts.
 */
export function biasControl({ layers, experts, speed = 1e-3 }: BiasOptions): BatchControl {
  const biases = Array.from({ length: layers }, () => new Float32Array(experts));
  return {
    state: Object.fromEntries(biases.map((bias, layer) => [biasName(layer), bias])),
    arrays: () => Object.fromEntries(biases.map((values, layer) => [biasName(layer), { shape: [experts], values }])),
    observe(measured) {
      for (const [layer, bias] of biases.entries()) {
        const load = measured.get(loadName(layer))!;
        let tokens = 0;
        for (const count of load) tokens += count;
        const mean = tokens / experts;
        for (let e = 0; e < experts; e++) bias[e] += speed * Math.sign(mean - load[e]);
      }
    },
  };
}

export interface SparsityOptions {
  /** Those with mixtures. */
  layers: number;
  experts: number;
  expertsPerToken: number;
  /** Of a batch. */
  tokens: number;
  /** λ at the start. Default 10⁻⁸. */
  initial?: number;
  /** By which λ changes each step. Default 1.2. */
  factor?: number;
}

/**
 * The weight λ of ReMoE's sparsity loss (Wang et al. 2024, arXiv:2412.14711): it grows while more experts work than wanted
 * and falls while fewer do, so that the share of silent ones settles at 1 − k/E.
 */
export function sparsityControl(options: SparsityOptions): BatchControl & { readonly sparsity: number } {
  const { layers, experts, expertsPerToken, tokens, initial = 1e-8, factor = 1.2 } = options;
  const state = { weight: Float32Array.of(initial), sparsity: 0 };
  const wanted = 1 - expertsPerToken / experts;
  return {
    state,
    get sparsity() {
      return state.sparsity;
    },
    metrics: () => ({ silentExperts: state.sparsity, routerSparsityWeight: state.weight[0] }),
    arrays: () => ({ [sparsityWeightName]: { shape: [], values: state.weight } }),
    observe(measured) {
      let working = 0;
      for (let layer = 0; layer < layers; layer++) {
        for (const load of measured.get(loadName(layer))!) working += load;
      }
      state.sparsity = 1 - working / (layers * experts * tokens);
      state.weight[0] *= state.sparsity < wanted ? factor : 1 / factor;
    },
  };
}
