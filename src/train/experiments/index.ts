import type { Experiment } from "./contract.js";

/** Every experiment, by the name the command line knows it by. */
export const experiments: Readonly<Record<string, () => Promise<{ experiment: Experiment }>>> = {
  sinc: () => import("./sinc.js"),
  spirals: () => import("./spirals.js"),
  selection: () => import("./selection.js"),
  "flip-rates": () => import("./flipRates.js"),
  remoe: () => import("./remoe.js"),
  terraformer: () => import("./terraformer.js"),
  "lottery-ticket": () => import("./lotteryTicket.js"),
  recovery: () => import("./recovery.js"),
  "context-pruning": () => import("./contextPruning.js"),
  "layer-gates": () => import("./layerGates.js"),
  structured: () => import("./structured.js"),
  distillation: () => import("./distillation.js"),
  qiren: () => import("./qiren.js"),
  "clustered-attention": () => import("./clusteredAttention.js"),
  "clustered-attention-time": () => import("./clusteredAttentionTime.js"),
  "text-classification": () => import("./textClassification.js"),
  adapters: () => import("./adapters.js"),
};
