import * as z from "zod/mini";
import type { Pattern } from "../../compress/index.js";
import { adamW } from "../optimizers/adamW.js";
import { chain, type Link } from "../optimizers/link.js";
import { keepMasks } from "../optimizers/links.js";
import { type Budget, projectSparse } from "../optimizers/projection.js";
import { plainDevice } from "../resident.js";
import { areEntries, joinUnits, type Units } from "../selection/groups.js";
import { densityOf, fullMasks } from "../selection/masks.js";
import { densityFor, isCoupled, structureOption, unitsOf } from "../selection/patterns.js";
import { meanOverlap, retentionCounter } from "../selection/retention.js";
import { stateOf } from "../state.js";
import type { ParameterInfo } from "../values.js";
import type { TrainMethod } from "./contract.js";

const options = z.strictObject({
  density: z
    .optional(z.number().check(z.gt(0), z.lte(1)))
    .check(z.describe("share kept of what the structure names: 0.5, or keep / group")),
  structure: structureOption,
  scope: z
    ._default(z.enum(["global", "layer"]), "layer")
    .check(
      z.describe("global: all layers share one budget; layer: each inner layer has its own, first and last stay dense"),
    ),
  interval: z._default(z.int().check(z.gte(1)), 1).check(z.describe("optimiser steps between two projections")),
  freezeAt: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 1)
    .check(z.describe("share of training after which positions stay as they are")),
  freezeOverlap: z
    .optional(z.number().check(z.gt(0), z.lte(1)))
    .check(z.describe("freeze once the support has been so far the most often kept positions, three checks running")),
  checkEvery: z._default(z.int().check(z.gte(1)), 50).check(z.describe("steps between two checks")),
  countRetention: z._default(z.boolean(), false).check(z.describe("count how often each weight was kept")),
});

const checksToFreeze = 3;

/**
 * Sparse optimisation by iterative hard thresholding: an optimiser step, then all but the s largest magnitudes become 0
 * (Beck, Eldar 2013, SIAM J. Optim. 23(3)). A weight at 0 returns only if one step takes it above the threshold. For weights
 * there may stand blocks, rows, columns, neurons or heads, by their norms: the projection onto group-sparse vectors.
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "iht",
  title: "Iterative hard thresholding",
  paper: "Beck, Eldar, SIAM Journal on Optimization 23(3), 2013",
  options,
  start({ parameters, weights, optimizer, steps }, settings) {
    const { structure, scope, interval, freezeAt, freezeOverlap, checkEvery, countRetention } = settings;
    const density = densityFor(structure, settings.density, 0.5);
    const budgets = unitsByBudget(parameters, structure, scope).map(
      (units): Budget => ({ units, keep: Math.round(density * units.pool) }),
    );
    const names = new Set(budgets.flatMap(({ units }) => units.members.map(({ name }) => name)));
    const masks = fullMasks(
      parameters.filter(({ name }) => names.has(name)),
      weights,
    );
    const retention = retentionCounter(countRetention || freezeOverlap !== undefined ? masks : new Map());
    const state = { masks: stateOf(masks), retention: stateOf(retention.counts), frozen: false, checksPassed: 0 };
    const freezeStep = Math.round(freezeAt * steps);

    const keep = keepMasks(masks);
    const keepFrozen: Link = {
      init: () => ({}),
      update: (...step) => state.frozen && keep.update!(...step),
      settle: (...step) => state.frozen && keep.settle!(...step),
    };
    const due = (step: number) => !state.frozen && (step + 1) % interval === 0;
    const onDevice = freezeAt === 1 && freezeOverlap === undefined && !countRetention && budgets.every(areSingle);
    /** Of a run on a device, whose masks are not brought up to date at every step. */
    let seen: number | undefined;
    return {
      link: chain(keepFrozen, adamW(optimizer), projectSparse(budgets, masks, due), keepFrozen),
      state,
      masks,
      refresh(_weights, step) {
        if (step >= freezeStep && step > 0) state.frozen = true;
      },
      after(_weights, step) {
        retention.count(masks);
        if (freezeOverlap === undefined || state.frozen || (step + 1) % checkEvery !== 0) return;
        state.checksPassed = meanOverlap(retention.counts, masks) >= freezeOverlap ? state.checksPassed + 1 : 0;
        state.frozen = state.checksPassed >= checksToFreeze;
      },
      metrics: () => ({ density: seen ?? densityOf(masks), frozen: Number(state.frozen) }),
      ...(onDevice && {
        device: {
          ...plainDevice,
          masks,
          projection: {
            interval,
            budgets: budgets.map(({ units, keep }) => ({ names: units.members.map(({ name }) => name), keep })),
            observe(density) {
              seen = density;
            },
          },
        },
      }),
    };
  },
};

/** Whether the units are single entries that all compete. */
const areSingle = ({ units }: Budget): boolean => areEntries(units) && units.pool === units.count;

/** One set of units for each budget. */
function unitsByBudget(parameters: readonly ParameterInfo[], structure: Pattern, scope: "global" | "layer"): Units[] {
  if (scope === "global") return [joinUnits(unitsOf(parameters, structure))];
  // The neurons or heads of a layer are a layer already.
  if (isCoupled(structure)) return unitsOf(parameters, structure);
  const inner = parameters.filter(({ role }) => role === "inner");
  const layers = new Set(inner.map(({ layer }) => layer));
  return [...layers].map((layer) =>
    joinUnits(
      unitsOf(
        inner.filter((info) => info.layer === layer),
        structure,
      ),
    ),
  );
}
