import { type AdamOptions, adam } from "./adam.js";
import { chain, type Link } from "./link.js";
import { clipByNorm, decayWeights, descend } from "./links.js";
import type { Schedule } from "./schedule.js";

/** Learning rate, Adam's moments, decay and clipping. */
export interface OptimizerOptions extends AdamOptions {
  rate: Schedule;
  /** Decoupled decay of `decays`. Default 0. */
  weightDecay?: number;
  /** Parameters the decay applies to. Default: all. */
  decays?: (name: string) => boolean;
  /** Longest gradient; unlimited by default. */
  clip?: number;
}

/** Clipping, Adam, decoupled weight decay, learning rate. */
export function adamW(options: OptimizerOptions): Link {
  const { weightDecay = 0, decays = () => true, clip, rate } = options;
  return chain(
    ...(clip === undefined ? [] : [clipByNorm(clip)]),
    adam(options),
    ...(weightDecay === 0 ? [] : [decayWeights(weightDecay, decays)]),
    descend(rate),
  );
}
