import { existsSync } from "node:fs";
import { shareDevice } from "./sharedDevice.js";

/** The software Vulkan device that Debian's Chromium brings. */
const swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json";

/**
 * Lets WebGPU in this process find a GPU where there is only a software one. Tests prefer it even on a machine with a
 * GPU, so that they mean the same everywhere; set VK_ICD_FILENAMES to test another driver.
 */
export async function useSoftwareGpu(): Promise<void> {
  if (process.env.VK_ICD_FILENAMES === undefined && existsSync(swiftShader)) {
    process.env.VK_ICD_FILENAMES = swiftShader;
  }
  pollSeldom();
  await shareDevice();
}

let polledSeldom = false;

/**
 * While something of the GPU is awaited, Dawn asks whether it is done in one `setImmediate` after the other. Where the GPU is
 * software that keeps a whole core from it; asked every millisecond, it gets that core.
 */
function pollSeldom(): void {
  if (polledSeldom) return;
  polledSeldom = true;
  const immediately = globalThis.setImmediate;
  const isNative = (task: () => void) => /\{ \[native code\] \}$/.test(Function.prototype.toString.call(task));
  const patched = (task: () => void, ...args: []) =>
    isNative(task) ? setTimeout(task, 1) : immediately(task, ...args);
  globalThis.setImmediate = Object.assign(patched, immediately) as unknown as typeof setImmediate;
}
