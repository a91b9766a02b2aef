import { DeviceError } from "../../core/index.js";

/**
 * Where gradients are computed. "cpu" interprets, slowly; it alone computes exponentials to the precision of f64, which
 * the tests of gradients need.
 */
export type EngineDevice = "cpu" | "wasm" | "webgpu";

/**
 * Starts the autograd engine (@jax-js/jax) on a device. The engine keeps one default device for the whole process; the
 * objectives of one process therefore run on one device.
 * @throws DeviceError when the device is not there
 */
export async function startEngine(device: EngineDevice = "wasm"): Promise<void> {
  if (device === "webgpu" && typeof process !== "undefined" && process.versions?.node !== undefined) {
    const { provideWebGpu } = await import("./dawn.node.js");
    await provideWebGpu();
  }
  const engine = await import("@jax-js/jax");
  const ready = await engine.init(device);
  if (!ready.includes(device)) {
    throw new DeviceError(`the training engine found no ${device} here`);
  }
  engine.defaultDevice(device);
}

/** Gives a GPU back, without which Node.js would not exit; the engine cannot use it again. Nothing to do elsewhere. */
export async function stopEngine(device: EngineDevice): Promise<void> {
  if (device !== "webgpu") return;
  const engine = await import("@jax-js/jax");
  let gpu: GPUDevice;
  try {
    gpu = engine.getWebGPUDevice();
  } catch {
    // It was never started.
    return;
  }
  gpu.destroy();
}
