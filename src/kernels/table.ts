import { UsageError } from "../core/index.js";
import type { Backend } from "./backend.js";

export interface BackendOptions {
  /** Threads that work at the same time, the calling one included; default: what the machine has. */
  threads?: number;
}

interface BackendModule {
  /** @throws DeviceError when this machine cannot run the backend; the message says what is missing. */
  createBackend(options?: BackendOptions): Promise<Backend>;
}

/** Every backend. Code of one that nobody opens is never loaded. */
export const backends = {
  reference: () => import("./reference/index.js"),
} as const satisfies Record<string, () => Promise<BackendModule>>;

export type BackendId = keyof typeof backends;

/** @throws UsageError for an unknown id, DeviceError when the machine cannot run the backend. */
export async function openBackend(id: string, options: BackendOptions = {}): Promise<Backend> {
  if (!Object.hasOwn(backends, id)) {
    throw new UsageError(`there is no backend "${id}"; there are ${Object.keys(backends).join(", ")}`);
  }
  const module: BackendModule = await backends[id as BackendId]();
  return module.createBackend(options);
}
