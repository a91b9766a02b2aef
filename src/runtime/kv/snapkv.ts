import { UsageError } from "../../core/index.js";
import { count } from "../parameters.js";
import { type Held, type KvEviction, policy } from "./policy.js";

/** Parameters that both policies have which look at a prompt once. */
export const promptParameters = {
  budget: count("tokens of a prompt", 2, 2048),
  window: count("last tokens of a prompt that decide, and stay", 1, 32),
  kernel: count("neighbours that scores are averaged over", 1, 5),
};

/**
 * SnapKV (2404.14469): once a prompt has run, each key head keeps its last `window` tokens and, of the others, those that they
 * gave most to, in the mean over `kernel` neighbours. What is generated is kept.
 */
export const snapkv = policy({
  summary: "of a prompt what its last tokens look at (SnapKV)",
  parameters: promptParameters,
  make: (values) => atPrompt(values, () => values.budget),
});

/** @param budgetOf of a layer, by what it holds */
export function atPrompt(
  { budget, window, kernel }: { budget: number; window: number; kernel: number },
  budgetOf: (layer: number, layers: number, held: number) => number,
): KvEviction {
  if (budget <= window) throw new UsageError(`a budget of ${budget} tokens has no room beside a window of ${window}`);
  return {
    budget: Number.POSITIVE_INFINITY,
    mass: "sum",
    prompt: { window, budget: budgetOf },
    evict({ positions, mass, budget: most }: Held) {
      const older = positions.length - window;
      const before = kernel >> 1;
      const smooth = Array.from({ length: older }, (_, i) => {
        let sum = 0;
        for (let j = Math.max(0, i - before); j < Math.min(older, i - before + kernel); j++) sum += mass[j];
        return sum;
      });
      // Of equals the younger goes.
      const falling = [...smooth.keys()].sort((a, b) => smooth[b] - smooth[a] || a - b);
      return falling.slice(Math.max(0, most - window));
    },
  };
}
