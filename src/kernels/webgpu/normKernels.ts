import type { Device } from "./device.js";
import { rmsNorm } from "./wgsl/rmsNorm.js";

/** A row is one workgroup's: the more threads, the fewer loads that wait for one another. */
const norms = [
  { least: 2048, threads: 1024 },
  { least: 257, threads: 256 },
  { least: 0, threads: 64 },
] as const;

/** Kernels of `Backend.rmsNorm`, each for rows of at least so many columns, the widest first. */
export function normKernels({
  isSoftware,
  limits,
}: Device): readonly { least: number; kernel: ReturnType<typeof rmsNorm> }[] {
  const mostThreads = isSoftware ? 256 : limits.maxComputeInvocationsPerWorkgroup;
  return norms
    .filter(({ threads }) => threads <= mostThreads)
    .map(({ least, threads }) => ({ least, kernel: rmsNorm(threads) }));
}
