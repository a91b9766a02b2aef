import { architectureNames, encoderNames } from "./golden.js";

/** llama3-rope is llama with another rotary embedding; of terraformer-convolutional all but its MLPs stays as it is. */
const decoders = architectureNames.filter((name) => name !== "llama3-rope" && name !== "terraformer-convolutional");

/**
 * Golden checkpoints by what tests do with each. The tests take their lists from here, and the table of families in
 * docs/formats.md is made of the same.
 */
export const covered: Readonly<Record<"run" | "thresholds" | "compressed", readonly string[]>> = {
  /** On every backend, against an independent implementation: golden.test.ts, encoders.test.ts. */
  run: [...architectureNames, ...encoderNames],
  /** With the thresholds of TEAL: test/activation/families.test.ts, of encoders encoders.test.ts. */
  thresholds: [...decoders, ...encoderNames],
  /** Pruned, quantised, with neurons taken away: test/compress/families.test.ts. */
  compressed: [...decoders, ...encoderNames],
};
