/** A learning rate (or another factor) by step, 0 for the first. */
export type Schedule = (step: number) => number;

/** The same rate at every step. */
export const constant =
  (value: number): Schedule =>
  () =>
    value;

export interface CosineOptions {
  peak: number;
  /** Reached at the end. Default 0. */
  final?: number;
  /** Steps of linear rise from peak / warmup to peak. Default 0. */
  warmup?: number;
  /** All steps, the warm-up among them. */
  steps: number;
}

/** Linear warm-up, then half a cosine down to `final`, which stays after the last step. */
export function cosine({ peak, final = 0, warmup = 0, steps }: CosineOptions): Schedule {
  return (step) => {
    if (step < warmup) return (peak * (step + 1)) / warmup;
    const share = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
    return final + 0.5 * (peak - final) * (1 + Math.cos(Math.PI * share));
  };
}
