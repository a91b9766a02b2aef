import { test } from "vitest";
import { useSoftwareGpu } from "../support/softwareGpu.js";

await useSoftwareGpu();

/** Why there is no GPU here, if so. */
export const unavailable = await import("../../src/kernels/internal.js")
  .then(({ openCompute }) => openCompute())
  .then(
    (compute) => compute[Symbol.dispose](),
    (error: Error) => error.message,
  );

type Where = readonly [name: string, device: "webgpu" | "wasm"];
/** Where schedules run, and on what: what is not here is reported as skipped. */
export const devices: readonly Where[] = [
  ["the CPU", "wasm"],
  ...(unavailable === undefined ? [["WebGPU", "webgpu"] satisfies Where] : []),
];
if (unavailable !== undefined) test.skip(`WebGPU: ${unavailable}`, () => {});

/** ‖a − b‖ / ‖b‖ */
export function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, size] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  return difference === 0 ? 0 : Math.sqrt(difference / size);
}
