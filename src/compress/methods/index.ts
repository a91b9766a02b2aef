import type { PruneMethod } from "../contract.js";

/** Every pruning method. */
export const pruneMethods: Readonly<Record<string, () => Promise<{ method: PruneMethod }>>> = {
  magnitude: () => import("./magnitude.js"),
  wanda: () => import("./wanda.js"),
  sparsegpt: () => import("./sparsegpt.js"),
  wrp: () => import("./wrp.js"),
  obd: () => import("./obd.js"),
  obs: () => import("./obs.js"),
  "llm-pruner": () => import("./llmPruner.js"),
};
