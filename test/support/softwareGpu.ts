import { existsSync } from "node:fs";

/** The software Vulkan device that Debian's Chromium brings. */
const swiftShader = "/usr/lib/chromium/vk_swiftshader_icd.json";

/**
 * Lets WebGPU in this process find a GPU where there is only a software one. Tests prefer it even on a machine with a
 * GPU, so that they mean the same everywhere; set VK_ICD_FILENAMES to test another driver.
 */
export function useSoftwareGpu(): void {
  if (process.env.VK_ICD_FILENAMES === undefined && existsSync(swiftShader)) {
    process.env.VK_ICD_FILENAMES = swiftShader;
  }
}
