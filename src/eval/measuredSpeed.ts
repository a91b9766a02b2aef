import { median } from "../core/index.js";

/** A speed as measured: what the rounds of one run gave, in units per second. */
export interface MeasuredSpeed {
  median: number;
  min: number;
  max: number;
  /** Rounds. */
  samples: number;
}

/** Median and range of one speed over some rounds, in the unit of the samples. */
export function measuredSpeed(samples: readonly number[]): MeasuredSpeed {
  return {
    median: median(samples),
    min: Math.min(...samples),
    max: Math.max(...samples),
    samples: samples.length,
  };
}

/** Whether two speeds differ: their ranges do not meet. Of a single round no range is known. */
export function speedsDiffer(a: MeasuredSpeed, b: MeasuredSpeed): boolean {
  if (a.samples < 2 || b.samples < 2) return false;
  return a.min > b.max || b.min > a.max;
}
