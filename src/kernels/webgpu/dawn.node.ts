import { DeviceError } from "../../core/index.js";
import type { GpuEntry } from "./gpuEntry.js";
import type { Turns } from "./naps.js";

/**
 * f16 is off on NVIDIA by default although its drivers do it right. Workgroup memory need not be cleared: our kernels write
 * it before they read it, and a software Vulkan device takes seconds to compile the clearing of a few KiB. Timestamps
 * are rounded for the privacy of browsers.
 */
const dawnOptions = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia,disable_workgroup_init",
  "disable-dawn-features=timestamp_quantization",
];

/**
 * Dawn frees its instance, and with it the running device, when the garbage collector finds nobody who refers to the `GPU`
 * object. Entries stay here until they are released.
 */
const open = new Set<GPU>();

/** A wait is noticed to be over so much later, and takes a tenth of a processor. */
const napMs = 0.2;
const nobodyWakes = new Int32Array(new SharedArrayBuffer(4));
const turns: Turns = {
  turn: () => new Promise((resolve) => setImmediate(resolve)),
  nap: () => void Atomics.wait(nobodyWakes, 0, 0, napMs),
};

/** @throws DeviceError when the package `webgpu` is not installed or does not load. */
export async function openDawn(): Promise<GpuEntry> {
  // A variable keeps bundlers from following an optional package.
  const packageName = "webgpu";
  let dawn: { create(options: string[]): GPU };
  try {
    dawn = await import(/* @vite-ignore */ /* webpackIgnore: true */ /* turbopackIgnore: true */ packageName);
  } catch (cause) {
    throw new DeviceError(`the optional package "${packageName}" did not load; npm install ${packageName}`, { cause });
  }
  const gpu = dawn.create(dawnOptions);
  open.add(gpu);
  return { gpu, turns, release: () => void open.delete(gpu) };
}
