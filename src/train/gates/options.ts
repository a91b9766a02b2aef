import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import type { MethodContext, MethodRun } from "../methods/contract.js";
import type { ParameterInfo, SharedUnits } from "../values.js";
import { type GatedGroup, gatedGroups } from "./gatedUnits.js";
import { gateTraining } from "./gateTraining.js";

const share = z.number().check(z.gte(0), z.lte(1));

/** Which units are meant by the option. */
const unitKinds: Readonly<Record<"all" | SharedUnits["type"], readonly SharedUnits["type"][]>> = {
  all: ["heads", "neurons"],
  heads: ["heads"],
  neurons: ["neurons"],
};

/** The option of methods for units: which of them. */
export const unitsOption = z
  ._default(z.enum(["all", "heads", "neurons"]), "all")
  .check(
    z.describe("units that may go: heads (with grouped queries, a key and value head and all that read it), neurons"),
  );

/** The option of methods for units: for which texts multiply-adds are counted. */
export const tokensOption = z
  ._default(z.number().check(z.gte(0)), 0)
  .check(z.describe("tokens of the texts whose multiply-adds are counted; 0 leaves out the pairs of attention"));

/** The options that training with gates has, whichever gates there are. */
export const gateOptions = z.strictObject({
  units: unitsOption,
  tokens: tokensOption,
  sparsity: z
    .optional(share.check(z.lt(1)))
    .check(z.describe("share of the multiply-adds of these units that goes: 0.5, where lambda is not given")),
  lambda: z
    .optional(z.number().check(z.gte(0)))
    .check(z.describe("in place of sparsity: what all multiply-adds of these units cost, in the unit of the loss")),
  stiffness: z
    ._default(z.number().check(z.gte(0)), 10)
    .check(z.describe("weight of the squared distance from the target at first, in the unit of the loss")),
  rate: z._default(z.number().check(z.gt(0)), 0.1).check(z.describe("learning rate of the gates and multipliers")),
  open: z
    ._default(z.number().check(z.gt(0), z.lt(1)), 0.95)
    .check(z.describe("probability that a gate is open at first")),
  until: z._default(share, 0.4).check(z.describe("share of the steps at which the target reaches sparsity")),
  fixedFrom: z
    ._default(share, 0.7)
    .check(z.describe("share of the steps from which on it is settled what goes, and weights alone are trained")),
});

/** The groups that `unitsOption` means, of what the model has. @throws UsageError for a model without such units */
export function groupsFor(
  parameters: readonly ParameterInfo[],
  units: keyof typeof unitKinds,
  tokens: number,
): GatedGroup[] {
  return gatedGroups(parameters, unitKinds[units], tokens);
}

/** Starts a run with gates. @throws UsageError for options that exclude each other, or a model without such units */
export function startGates(
  context: MethodContext,
  { units, tokens, sparsity, lambda, ...options }: z.output<typeof gateOptions>,
  coarse: boolean,
): MethodRun {
  if (sparsity !== undefined && lambda !== undefined) throw new UsageError("give either sparsity or lambda");
  const groups = groupsFor(context.parameters, units, tokens);
  return gateTraining(context, groups, {
    ...options,
    coarse,
    lambda: lambda ?? 0,
    ...(lambda === undefined && { sparsity: sparsity ?? 0.5 }),
  });
}
