import type { QuantizeMethod, ScaleMethod } from "../contract.js";

/** Every quantisation method. */
export const quantizeMethods: Readonly<Record<string, () => Promise<{ method: QuantizeMethod }>>> = {
  rtn: () => import("./rtn.js"),
  gptq: () => import("./gptq.js"),
  awq: () => import("./awq.js"),
  absmax: async () => ({ method: (await import("./int8.js")).absmax }),
  zeropoint: async () => ({ method: (await import("./int8.js")).zeropoint }),
  rowwise: async () => ({ method: (await import("./int8.js")).rowwise }),
  vectorwise: async () => ({ method: (await import("./int8.js")).vectorwise }),
  llmint8: () => import("./llmint8.js"),
};

/** Methods that rescale input channels before quantisation. */
export const scaleMethods: Readonly<Record<string, () => Promise<{ method: ScaleMethod }>>> = {
  smoothquant: () => import("./smoothquant.js"),
};
