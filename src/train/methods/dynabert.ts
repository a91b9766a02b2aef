import * as z from "zod/mini";
import { type GatedGroup, gateGradients } from "../gates/gatedUnits.js";
import { groupsFor, unitsOption } from "../gates/options.js";
import { orderKey, reorderUnits } from "../gates/reorder.js";
import { adamW } from "../optimizers/adamW.js";
import { scaleUnits } from "../selection/groups.js";
import { stateOf } from "../state.js";
import type { FloatArray } from "../values.js";
import type { TrainMethod } from "./contract.js";

const share = z.number().check(z.gt(0), z.lte(1));
const options = z.strictObject({
  units: unitsOption,
  widths: z
    ._default(z.array(share).check(z.minLength(1)), [1, 0.75, 0.5, 0.25])
    .check(z.describe("shares of the units of every layer that are trained in turn, [1,0.75,0.5,0.25]")),
  rank: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.1)
    .check(z.describe("share of the steps, the first ones, in which the whole width is trained and units are ranked")),
});

/** How many of `count` units a width keeps, at least one. */
export const unitsOfWidth = (width: number, count: number): number => Math.max(1, Math.round(width * count));

/**
 * One model for several widths: in the first steps units are ranked by Σ |z·∂L/∂z| of a factor z of 1, then every step trains one
 * width, in turn, in which each layer has its most important units alone. In the end the units of every layer lie in that order, so
 * that its first ones are a narrower model. The published method adds up the gradients of all widths in a step, learns from the
 * full model's predictions and hidden states, and then varies depth; here the teacher is the objective's matter, and depth stays.
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "dynabert",
  title: "DynaBERT's widths",
  paper: "Hou et al. 2020, arXiv:2004.04037",
  options,
  start({ parameters, weights, optimizer, steps }, { units, widths, rank }) {
    const groups = groupsFor(parameters, units, 0);
    const ranked = Math.max(1, Math.round(rank * steps));
    const importances = new Map(groups.map((group) => [keyOf(group), new Float64Array(group.count)]));
    const seen = new Map<string, FloatArray>(weights);
    for (const { behind } of groups) for (const { name } of behind.members) seen.set(name, weights.get(name)!.slice());
    let [step, width] = [0, 1];
    let masks: Uint8Array[] | undefined;
    const masksOf = (width: number) =>
      groups.map((group) => {
        const mask = new Uint8Array(group.count);
        const order = orderOf(importances.get(keyOf(group))!);
        for (const unit of order.subarray(0, unitsOfWidth(width, group.count))) mask[unit] = 1;
        return mask;
      });
    return {
      link: adamW(optimizer),
      state: { importances: stateOf(importances) },
      refresh(_weights, now) {
        step = now;
        width = step < ranked ? 1 : widths[(step - ranked) % widths.length];
        masks = width === 1 ? undefined : masksOf(width);
      },
      effective(current) {
        if (masks === undefined) return current;
        for (const [g, { behind }] of groups.entries()) scaleUnits(behind, masks[g], current, seen);
        return seen;
      },
      gradient(gradients, current) {
        for (const [g, group] of groups.entries()) {
          if (step < ranked) {
            const sums = importances.get(keyOf(group))!;
            for (const [unit, gradient] of gateGradients(group, gradients, current).entries())
              sums[unit] += Math.abs(gradient);
          } else if (masks !== undefined) scaleUnits(group.behind, masks[g], gradients, gradients);
        }
      },
      after() {
        masks = undefined;
      },
      finish(current) {
        const orders = new Map(Array.from(importances, ([key, own]) => [key, orderOf(own)]));
        reorderUnits(parameters, current, orders);
      },
      metrics: () => ({ width }),
    };
  },
};

const keyOf = ({ kind, name }: GatedGroup): string => orderKey(kind, name);

/** The most important first, of equals the first. */
const orderOf = (importance: Float64Array): Int32Array =>
  Int32Array.from(importance.keys()).sort((a, b) => importance[b] - importance[a] || a - b);
