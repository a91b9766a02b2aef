import { count } from "../parameters.js";
import { policy } from "./policy.js";

/**
 * Any of the older tokens goes, alike in all heads: what a policy has to beat. The draw of step t is the t-th number of x ←
 * (1664525 x + 1013904223) mod 2^32.
 */
export const random = policy({
  summary: "the newest half and any of the older ones: what a policy has to beat",
  parameters: { budget: count("tokens", 2), seed: count("where the random numbers begin", 0, 1) },
  make: ({ budget, seed }) => {
    const drawn: number[] = [];
    const drawAt = (step: number): number => {
      while (drawn.length <= step) {
        drawn.push((Math.imul(1664525, drawn.at(-1) ?? seed) + 1013904223) >>> 0);
      }
      return drawn[step];
    };
    return {
      budget,
      evict: ({ positions, run }) => {
        const candidates = Array.from(positions.keys());
        const gone: number[] = [];
        for (let step = run - (positions.length - budget); step < run; step++) {
          const among = candidates.length - Math.floor(budget / 2);
          gone.push(...candidates.splice(Math.floor((drawAt(step) / 2 ** 32) * among), 1));
        }
        return gone;
      },
    };
  },
});
