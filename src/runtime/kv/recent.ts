import { count } from "../parameters.js";
import { oldest, policy } from "./policy.js";

/** The newest `budget` tokens. */
export const recent = policy({
  summary: "the newest tokens",
  parameters: { budget: count("tokens", 1) },
  make: ({ budget }) => ({ budget, evict: (held) => oldest(held) }),
});
