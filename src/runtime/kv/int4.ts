import { policy } from "./policy.js";

/** Everything is kept, in 4 bits: a scale for each key and each value of a head. */
export const int4 = policy({
  summary: "everything, in 4 bits",
  parameters: {},
  make: () => undefined,
  codes: () => ({ bits: 4 }),
});
