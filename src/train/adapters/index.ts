import type { AdapterMethod, RoutedAdapterMethod } from "./contract.js";

/** Every kind of adapter that is trained through the weights that do the same. */
export const adapterMethods: Readonly<Record<string, () => Promise<{ method: AdapterMethod }>>> = {
  lora: async () => (await import("./lora.js")) as { method: AdapterMethod },
  ia3: async () => (await import("./ia3.js")) as { method: AdapterMethod },
};

/** Every kind of adapter that weighs experts for each token. */
export const routedAdapterMethods: Readonly<Record<string, () => Promise<{ method: RoutedAdapterMethod }>>> = {
  molora: async () => (await import("./molora.js")) as { method: RoutedAdapterMethod },
  mov: async () => (await import("./mov.js")) as { method: RoutedAdapterMethod },
};
