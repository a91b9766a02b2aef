import { policy } from "./policy.js";

/** Everything is kept, in 8 bits: a scale for each key and each value of a head. */
export const int8 = policy({
  summary: "everything, in 8 bits",
  parameters: {},
  make: () => undefined,
  codes: () => ({ bits: 8 }),
});
