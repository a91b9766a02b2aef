import { policy } from "./policy.js";

/** Dynamic context pruning (arXiv 2305.15805): each layer lets go of the tokens that it was trained to find no longer needed. */
export const pruned = policy({
  summary: "what the model was trained to find still needed, in each layer (dynamic context pruning)",
  parameters: {},
  make: () => ({
    budget: Number.POSITIVE_INFINITY,
    trained: true,
    *evict({ dropped }) {
      for (const [i, is] of dropped.entries()) if (is) yield i;
    },
  }),
});
