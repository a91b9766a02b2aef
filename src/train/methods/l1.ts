import { z } from "zod";
import { adamW } from "../optimizers/adamW.js";
import { chain, type Link } from "../optimizers/link.js";
import { addSign, proximalAdam, shrink } from "../optimizers/proximal.js";
import { isSparsifiable } from "../values.js";
import type { MethodContext, TrainMethod } from "./contract.js";

const options = z.strictObject({
  lambda: z.number().min(0).default(1e-4).describe("weight of ‖W‖₁ at the start"),
  variant: z
    .enum(["metric", "decoupled", "naive"])
    .default("metric")
    .describe(
      "metric: proximal map in Adam's metric; decoupled: plain soft threshold; naive: λ·sign(w) in the gradient",
    ),
  sparsity: z.number().min(0).lt(1).optional().describe("share of zeros to steer λ to"),
  factor: z
    .number()
    .min(1)
    .default(1.02)
    .describe("by which λ grows below that sparsity and falls above it, each step"),
});

const variants: Record<
  "metric" | "decoupled" | "naive",
  (optimizer: MethodContext["optimizer"], lambda: () => number, applies: (name: string) => boolean) => Link
> = {
  metric: proximalAdam,
  decoupled: (optimizer, lambda, applies) => chain(adamW(optimizer), shrink(lambda, optimizer.rate, applies)),
  naive: (optimizer, lambda, applies) => chain(addSign(lambda, applies), adamW(optimizer)),
};

/** L1-regularised training: L + λ‖W‖₁ over linear weights, λ fixed or steered to a share of zeros. */
export const method: TrainMethod<z.output<typeof options>> = {
  id: "l1",
  title: "L1 by proximal steps",
  paper: "Parikh, Boyd 2014, Proximal Algorithms",
  options,
  start({ parameters, optimizer }, { lambda, variant, sparsity: wanted, factor }) {
    const sparse = parameters.filter(isSparsifiable).map(({ name }) => name);
    const names = new Set(sparse);
    const state = { lambda, sparsity: 0 };
    return {
      link: variants[variant](
        optimizer,
        () => state.lambda,
        (name) => names.has(name),
      ),
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
