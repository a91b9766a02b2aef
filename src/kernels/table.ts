import { DeviceError, UsageError } from "../core/index.js";
import type { Backend } from "./backend.js";
import type { BackendOptions } from "./backendOptions.js";
import { checked } from "./checked.js";

interface BackendModule {
  /** Without checks of operands. @throws DeviceError when this machine cannot run the backend; the message says what is missing. */
  createBackend(options?: BackendOptions): Promise<Backend>;
}

/** Every backend. Code of one that nobody opens is never loaded. */
export const backends = {
  wasm: () => import("./wasm/index.js"),
  webgpu: () => import("./webgpu/index.js"),
  reference: () => import("./reference/index.js"),
} as const satisfies Record<string, () => Promise<BackendModule>>;

/** One of `backends`: "wasm", "webgpu", "reference". */
export type BackendId = keyof typeof backends;

/**
 * What people choose between: the backends of each, in the order in which they are tried. `auto` takes a GPU only if it is
 * one: a software GPU is slower than the CPU's own backend.
 */
export const devices = {
  cpu: ["wasm", "reference"],
  webgpu: ["webgpu"],
  auto: ["webgpu", "wasm", "reference"],
} as const satisfies Record<string, readonly BackendId[]>;

/** One of `devices`: "cpu", "webgpu", "auto". */
export type DeviceId = keyof typeof devices;

/**
 * Opens the first backend of a device that this machine can run; default "cpu". One that gets no threads works in one before a
 * slower backend is taken.
 * @throws UsageError for an unknown device, DeviceError when the machine can run none of its backends.
 */
export async function openDevice(device: string = "cpu", options: BackendOptions = {}): Promise<Backend> {
  if (!Object.hasOwn(devices, device)) throw unknown("device", device, devices);
  return firstOf(devices[device as DeviceId], { fewerThreads: true, ...options, hardwareGpu: device === "auto" });
}

/**
 * @param id undefined takes the fastest that this machine's CPU can run.
 * @throws UsageError for an unknown id, DeviceError when the machine cannot run the backend.
 */
export async function openBackend(id: string | undefined, options: BackendOptions = {}): Promise<Backend> {
  if (id === undefined) return firstOf(devices.cpu, { fewerThreads: true, ...options });
  if (!Object.hasOwn(backends, id)) throw unknown("backend", id, backends);
  return firstOf([id as BackendId], options);
}

async function firstOf(candidates: readonly BackendId[], options: BackendOptions): Promise<Backend> {
  const refusals: unknown[] = [];
  for (const candidate of candidates) {
    const module: BackendModule = await backends[candidate]();
    try {
      return checked(await module.createBackend(options));
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      refusals.push(error);
    }
  }
  throw refusals[0];
}

const unknown = (what: string, id: string, table: object) =>
  new UsageError(`there is no ${what} "${id}"; there are ${Object.keys(table).join(", ")}`);
