import type { AdapterMethod } from "./contract.js";

/** Every kind of adapter that can be trained. */
export const adapterMethods: Readonly<Record<string, () => Promise<{ method: AdapterMethod }>>> = {
  lora: async () => (await import("./lora.js")) as { method: AdapterMethod },
  ia3: async () => (await import("./ia3.js")) as { method: AdapterMethod },
};
