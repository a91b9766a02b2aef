import { z } from "zod";
import { adamW } from "../optimizers/adamW.js";
import { chain, type Link } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { hardThreshold } from "../selection/hardThreshold.js";
import { retentionCounter } from "../selection/retention.js";
import { stateOf } from "../state.js";
import { isSparsifiable, type ParameterInfo } from "../values.js";
import type { TrainMethod } from "./contract.js";

const options = z.strictObject({
  density: z.number().gt(0).max(1).describe("share of weights kept"),
  scope: z
    .enum(["global", "layer"])
    .default("layer")
    .describe("global: all layers share one budget; layer: each inner layer has its own, first and last stay dense"),
  interval: z.int().min(1).default(1).describe("optimiser steps between two projections"),
  freezeAt: z.number().min(0).max(1).default(1).describe("share of training after which positions stay as they are"),
  countRetention: z.boolean().default(false).describe("count how often each weight was kept"),
});

/**
 * Sparse optimisation by iterative hard thresholding: an optimiser step, then all but the s largest magnitudes become 0
 * (Beck, Eldar 2013, SIAM J. Optim. 23(3)). A weight at 0 returns only if one step takes it above the threshold.
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "iht",
  title: "Iterative hard thresholding",
  paper: "Beck, Eldar, SIAM Journal on Optimization 23(3), 2013",
  options,
  start({ parameters, weights, optimizer, steps }, { density, scope, interval, freezeAt, countRetention }) {
    const groups = budgetGroups(parameters, scope);
    const sparse = groups.flat();
    const masks = new Map(sparse.map(({ name }) => [name, new Uint8Array(weights.get(name)!.length).fill(1)]));
    const retention = retentionCounter(countRetention ? masks : new Map());
    const state = { masks: stateOf(masks), retention: stateOf(retention.counts), frozen: false };
    const freezeStep = Math.round(freezeAt * steps);

    const project: Link = {
      init: () => ({}),
      settle(moved, _state, step) {
        if (state.frozen || (step + 1) % interval !== 0) return;
        for (const group of groups) {
          const parts = group.map(({ name }) => moved.get(name) as Float32Array);
          const total = parts.reduce((sum, part) => sum + part.length, 0);
          const groupMasks = group.map(({ name }) => masks.get(name)!);
          hardThreshold(parts, Math.round(density * total), groupMasks);
        }
      },
    };
    const keep = keepMasks(masks);
    const keepFrozen: Link = {
      init: () => ({}),
      update: (...step) => state.frozen && keep.update!(...step),
      settle: (...step) => state.frozen && keep.settle!(...step),
    };
    return {
      link: chain(keepFrozen, adamW(optimizer), project),
      state,
      masks,
      refresh(_weights, step) {
        if (step >= freezeStep && step > 0) state.frozen = true;
      },
      after: () => retention.count(masks),
    };
  },
};

/** Parameters that share one budget. */
function budgetGroups(parameters: readonly ParameterInfo[], scope: "global" | "layer"): ParameterInfo[][] {
  if (scope === "global") return [parameters.filter(isSparsifiable)];
  const inner = parameters.filter(({ role }) => role === "inner");
  const layers = new Set(inner.map(({ layer }) => layer));
  return [...layers].map((layer) => inner.filter((info) => info.layer === layer));
}
