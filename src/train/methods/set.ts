import * as z from "zod/mini";
import { densityFor, structureOption } from "../selection/patterns.js";
import type { MethodContext, TrainMethod } from "./contract.js";
import { cosineShare, dynamicSparse, type Growth } from "./dynamicSparse.js";

export const dynamicOptions = z.strictObject({
  structure: structureOption,
  density: z
    .optional(z.number().check(z.gt(0), z.lte(1)))
    .check(z.describe("share of weights that are there, all matrices together: 0.1, or that of keep:group")),
  distribution: z
    .optional(z.enum(["erk", "uniform"]))
    .check(z.describe("how the density is spread over matrices: erk, but uniform for keep:group")),
  interval: z._default(z.int().check(z.gte(1)), 100).check(z.describe("steps between two updates of the connections")),
  until: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.75)
    .check(z.describe("share of the steps after which connections stay")),
  replaced: z
    ._default(z.number().check(z.gte(0), z.lte(1)), 0.3)
    .check(z.describe("share of connections that the first update replaces")),
});

/** SET and RigL differ in how they grow. */
export function startDynamic(
  context: MethodContext,
  { structure, density, distribution, interval, until, replaced }: z.output<typeof dynamicOptions>,
  growth: Growth,
) {
  const end = until * context.steps;
  return dynamicSparse(context, {
    structure,
    density: densityFor(structure, density, 0.1),
    distribution: distribution ?? (structure.type === "nm" ? "uniform" : "erk"),
    growth,
    due: (step) => step > 0 && step % interval === 0 && cosineShare(replaced, step, end) > 0,
    rewire(step, ones) {
      const count = Math.floor(cosineShare(replaced, step, end) * ones);
      return { drop: count, grow: count };
    },
  });
}

/** Sparse evolutionary training: drops the weakest connections, grows as many at random. */
export const method: TrainMethod<z.output<typeof dynamicOptions>> = {
  id: "set",
  title: "SET",
  paper: "Mocanu et al. 2018, arXiv:1707.04780",
  options: dynamicOptions,
  start: (context, options) => startDynamic(context, options, "random"),
};
