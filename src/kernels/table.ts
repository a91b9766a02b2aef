import { DeviceError, UsageError } from "../core/index.js";
import type { Backend } from "./backend.js";

export interface BackendOptions {
  /** Threads that work at the same time, the calling one included; default: what the machine has. */
  threads?: number;
}

interface BackendModule {
  /** @throws DeviceError when this machine cannot run the backend; the message says what is missing. */
  createBackend(options?: BackendOptions): Promise<Backend>;
}

/** Every backend, in the order in which they are tried when none is named. Code of one that nobody opens is never loaded. */
export const backends = {
  wasm: () => import("./wasm/index.js"),
  webgpu: () => import("./webgpu/index.js"),
  reference: () => import("./reference/index.js"),
} as const satisfies Record<string, () => Promise<BackendModule>>;

export type BackendId = keyof typeof backends;

/**
 * @param id undefined takes the first of the table that this machine can run.
 * @throws UsageError for an unknown id, DeviceError when the machine cannot run the backend.
 */
export async function openBackend(id: string | undefined, options: BackendOptions = {}): Promise<Backend> {
  if (id !== undefined && !Object.hasOwn(backends, id)) {
    throw new UsageError(`there is no backend "${id}"; there are ${Object.keys(backends).join(", ")}`);
  }
  const candidates = id === undefined ? Object.keys(backends) : [id];
  const refusals: unknown[] = [];
  for (const candidate of candidates) {
    const module: BackendModule = await backends[candidate as BackendId]();
    try {
      return await module.createBackend(options);
    } catch (error) {
      if (!(error instanceof DeviceError)) throw error;
      refusals.push(error);
    }
  }
  throw refusals[0];
}
