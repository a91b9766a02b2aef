import { UsageError } from "../../core/index.js";
import { count, oneOf } from "../parameters.js";
import { policy } from "./policy.js";

/**
 * Heavy hitters (H2O, 2306.14048): of the older tokens each key head keeps those that attention gave most to so far, and the
 * newest ones always. Each head keeps its own.
 */
export const h2o = policy({
  summary: "the newest tokens and those attention gave most to (H2O)",
  parameters: {
    budget: count("tokens", 2),
    recent: count("newest tokens that stay; 0: half of the budget", 0, 0),
    group: oneOf("how query heads that share a key head are joined", "sum", "max"),
  },
  make: ({ budget, recent, group }) => {
    const newest = recent === 0 ? Math.floor(budget / 2) : recent;
    if (newest > budget) throw new UsageError(`h2o:budget=${budget},recent=${recent} keeps more new tokens than fit`);
    return {
      budget,
      mass: group,
      evict: ({ positions, mass }) => {
        const candidates = Array.from({ length: positions.length - newest }, (_, i) => i);
        const tooMany = positions.length - budget;
        // Of equals the older goes. One at a time, as in decoding, needs no sorting.
        if (tooMany === 1) return [candidates.reduce((least, i) => (mass[i] < mass[least] ? i : least), 0)];
        return candidates.sort((a, b) => mass[a] - mass[b]).slice(0, tooMany);
      },
    };
  },
});
