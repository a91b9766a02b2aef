import type { BackendCounters } from "./backend.js";

/** Counters of nothing. */
export const zeroCounters = (): BackendCounters => ({
  weightBytesRead: 0,
  inputs: 0,
  inputsSkipped: 0,
  kvBytesRead: 0,
});
