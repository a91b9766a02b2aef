import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { structureOption } from "../selection/patterns.js";
import type { TrainMethod } from "./contract.js";
import { dynamicSparse } from "./dynamicSparse.js";
import { cubicSparsity } from "./gradual.js";

const share = z.number().check(z.gte(0), z.lte(1));
const options = z.strictObject({
  structure: structureOption,
  initial: z._default(share, 0.1).check(z.describe("density at the start")),
  peak: z._default(share, 0.6).check(z.describe("density that growth reaches")),
  final: z._default(share, 0.05).check(z.describe("density after pruning")),
  growUntil: z._default(share, 0.15).check(z.describe("share of the steps at which growth ends")),
  pruneFrom: z._default(share, 0.3).check(z.describe("share of the steps at which pruning begins")),
  pruneUntil: z._default(share, 0.75).check(z.describe("share of the steps at which it ends")),
  interval: z._default(z.int().check(z.gte(1)), 100).check(z.describe("steps between two updates of the connections")),
  growth: z._default(z.enum(["gradient", "random"]), "gradient").check(z.describe("which connections grow")),
  regrown: z._default(share, 0.1).check(z.describe("share of connections that a pruning update replaces besides")),
});

/** Density at a step: up in a line, a plateau, down on a cubic. */
export function growPruneDensity(
  { initial, peak, final, growUntil, pruneFrom, pruneUntil }: z.output<typeof options>,
  way: number,
): number {
  if (way < growUntil) return initial + ((peak - initial) * way) / growUntil;
  if (way < pruneFrom) return peak;
  return (
    1 - cubicSparsity(1 - peak, 1 - final, pruneUntil === pruneFrom ? 1 : (way - pruneFrom) / (pruneUntil - pruneFrom))
  );
}

/**
 * A schedule after the developing brain, which makes too many connections and then prunes by use: density rises, peaks early
 * and falls while the units stay. Whether the rise helps is what its ablations ask; none is claimed.
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "grow-prune",
  title: "Grow, then prune",
  paper: "after Mocanu et al. 2018 and Liu et al. 2021 (GraNet), arXiv:2106.10404",
  options,
  start(context, settings) {
    const { structure } = settings;
    if (structure.type === "nm") throw new UsageError("the density of keep:group is fixed; grow-prune changes it");
    return dynamicSparse(context, {
      structure,
      density: settings.initial,
      distribution: "uniform",
      growth: settings.growth,
      // The first update from `pruneUntil` on brings the density to the last one.
      due: (step) =>
        step > 0 &&
        step % settings.interval === 0 &&
        step / context.steps <= settings.pruneUntil + settings.interval / context.steps,
      rewire(step, ones, size) {
        const way = step / context.steps;
        const change = Math.round(growPruneDensity(settings, way) * size) - ones;
        const replaced = change < 0 ? Math.floor(settings.regrown * (ones + change)) : 0;
        return { drop: Math.max(0, -change) + replaced, grow: Math.max(0, change) + replaced };
      },
    });
  },
};
