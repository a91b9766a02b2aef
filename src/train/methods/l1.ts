import * as z from "zod/mini";
import { UsageError } from "../../core/index.js";
import { adamW } from "../optimizers/adamW.js";
import { addDirection, shrinkUnits } from "../optimizers/groupLasso.js";
import { chain, type Link } from "../optimizers/link.js";
import { addSign, proximalAdam, shrink } from "../optimizers/proximal.js";
import type { Units } from "../selection/groups.js";
import { structureOption, unitsOf } from "../selection/patterns.js";
import { isSparsifiable } from "../values.js";
import type { MethodContext, TrainMethod } from "./contract.js";

const options = z.strictObject({
  lambda: z._default(z.number().check(z.gte(0)), 1e-4).check(z.describe("weight of ‖W‖₁ at the start")),
  structure: structureOption,
  variant: z
    .optional(z.enum(["metric", "decoupled", "naive"]))
    .check(
      z.describe(
        "metric: proximal map in Adam's metric, for single weights; decoupled: plain soft threshold, for groups; naive: the sub-gradient",
      ),
    ),
  sparsity: z.optional(z.number().check(z.gte(0), z.lt(1))).check(z.describe("share of zeros to steer λ to")),
  factor: z
    ._default(z.number().check(z.gte(1)), 1.02)
    .check(z.describe("by which λ grows below that sparsity and falls above it, each step")),
});

const variants: Record<
  "metric" | "decoupled" | "naive",
  (optimizer: MethodContext["optimizer"], lambda: () => number, applies: (name: string) => boolean) => Link
> = {
  metric: proximalAdam,
  decoupled: (optimizer, lambda, applies) => chain(adamW(optimizer), shrink(lambda, optimizer.rate, applies)),
  naive: (optimizer, lambda, applies) => chain(addSign(lambda, applies), adamW(optimizer)),
};

function groupLink(
  variant: "metric" | "decoupled" | "naive",
  optimizer: MethodContext["optimizer"],
  lambda: () => number,
  sets: readonly Units[],
): Link {
  if (variant === "metric") throw new UsageError("a group has no proximal map in Adam's metric; use variant=decoupled");
  if (variant === "naive") return chain(addDirection(lambda, sets), adamW(optimizer));
  return chain(adamW(optimizer), shrinkUnits(lambda, optimizer.rate, sets));
}

/**
 * L1-regularised training: L + λ‖W‖₁ over linear weights, λ fixed or steered to a share of zeros. With blocks, rows, columns,
 * neurons or heads it is the group lasso: λ·Σ √n·‖u‖ over units u of n entries (Yuan, Lin 2006).
 */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "l1",
  title: "L1 by proximal steps",
  paper: "Parikh, Boyd 2014, Proximal Algorithms",
  options,
  start({ parameters, optimizer }, { structure, lambda, variant, sparsity: wanted, factor }) {
    if (structure.type === "nm") throw new UsageError("no norm leads to keep:group; use sr-ste or cast");
    const sparse = parameters.filter(isSparsifiable).map(({ name }) => name);
    const names = new Set(sparse);
    const state = { lambda, sparsity: 0 };
    return {
      link:
        structure.type === "unstructured"
          ? variants[variant ?? "metric"](
              optimizer,
              () => state.lambda,
              (name) => names.has(name),
            )
          : groupLink(variant ?? "decoupled", optimizer, () => state.lambda, unitsOf(parameters, structure)),
      state,
      after(weights) {
        let zeros = 0;
        let all = 0;
        for (const name of sparse) {
          const values = weights.get(name)!;
          for (let i = 0; i < values.length; i++) if (values[i] === 0) zeros++;
          all += values.length;
        }
        state.sparsity = zeros / all;
        if (wanted !== undefined) state.lambda *= state.sparsity < wanted ? factor : 1 / factor;
      },
      metrics: () => ({ lambda: state.lambda, sparsity: state.sparsity }),
    };
  },
};
