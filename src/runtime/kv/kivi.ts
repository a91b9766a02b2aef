import { count, oneOf } from "../parameters.js";
import { policy } from "./policy.js";

/**
 * KIVI (2402.02750): everything is kept, but for the newest tokens in few bits; keys have a scale for every channel of 32
 * tokens, values one for every 32 channels.
 */
export const kivi = policy({
  summary: "everything, all but the newest in few bits (KIVI)",
  parameters: {
    bits: oneOf("bits of a number", "2", "4", "8"),
    residual: count("newest tokens that stay f32", 1, 128),
  },
  make: () => undefined,
  codes: ({ bits, residual }) => ({ bits: Number(bits) as 2 | 4 | 8, residual }),
});
