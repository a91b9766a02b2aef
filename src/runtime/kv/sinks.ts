import { UsageError } from "../../core/index.js";
import { count, oneOf } from "../parameters.js";
import { oldest, policy } from "./policy.js";

/** Attention sinks (StreamingLLM, 2309.17453): the first tokens are never thrown away. */
export const sinks = policy({
  summary: "the first tokens and the newest ones (StreamingLLM)",
  parameters: {
    budget: count("tokens, the first ones included", 1),
    sinks: count("first tokens that stay", 0, 4),
    positions: oneOf("whether tokens keep their positions, or take those of their slots", "original", "slots"),
  },
  make: ({ budget, sinks, positions }) => {
    if (sinks >= budget) throw new UsageError(`sinks:budget=${budget},sinks=${sinks} leaves no room for new tokens`);
    return { budget, renumbers: positions === "slots", evict: (held) => oldest(held, sinks) };
  },
});
