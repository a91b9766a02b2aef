import * as z from "zod";
import { densityFor, structureOption } from "../selection/patterns.js";
import type { MethodContext, TrainMethod } from "./contract.js";
import { cosineShare, dynamicSparse, type Growth } from "./dynamicSparse.js";

export const dynamicOptions = z.strictObject({
  structure: structureOption,
  density: z
    .number()
    .gt(0)
    .max(1)
    .optional()
    .describe("share of weights that are there, all matrices together: 0.1, or that of keep:group"),
  distribution: z
    .enum(["erk", "uniform"])
    .optional()
    .describe("how the density is spread over matrices: erk, but uniform for keep:group"),
  interval: z.int().min(1).default(100).describe("steps between two updates of the connections"),
  until: z.number().min(0).max(1).default(0.75).describe("share of the steps after which connections stay"),
  replaced: z.number().min(0).max(1).default(0.3).describe("share of connections that the first update replaces"),
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
