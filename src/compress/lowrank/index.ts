import type { LowRankMethod } from "../contract.js";

/** Every low-rank method. */
export const lowRankMethods: Readonly<Record<string, () => Promise<{ method: LowRankMethod }>>> = {
  svd: () => import("./svd.js"),
  asvd: () => import("./asvd.js"),
  svdllm: () => import("./svdllm.js"),
};
