import { DeviceError } from "../../core/index.js";

/**
 * Puts Dawn where the engine looks for a browser's WebGPU: constants as globals and `navigator.gpu`. It must happen before the
 * engine is imported, and it lasts as long as the process.
 * @throws DeviceError when the optional package "webgpu" is not installed
 */
export async function provideWebGpu(): Promise<void> {
  if ((globalThis.navigator as Navigator | undefined)?.gpu !== undefined) return;
  // A variable keeps bundlers from following an optional package.
  const packageName = "webgpu";
  let dawn: { create(options: string[]): GPU; globals: object };
  try {
    dawn = await import(/* @vite-ignore */ /* webpackIgnore: true */ /* turbopackIgnore: true */ packageName);
  } catch (cause) {
    throw new DeviceError(`the optional package "${packageName}" did not load; npm install ${packageName}`, { cause });
  }
  Object.assign(globalThis, dawn.globals);
  Object.defineProperty(globalThis, "navigator", {
    value: { gpu: dawn.create([]), hardwareConcurrency: 1, userAgent: "node" },
    configurable: true,
  });
}
