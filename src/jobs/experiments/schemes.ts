import type { RecipeInput } from "../../compress/index.js";
import type { WeightFormatId } from "../../pack/index.js";

type Stage = RecipeInput["stages"][number];

/** How a model is made lighter, in the order in which it is done. */
export interface Scheme {
  /** In one shot, before it is trained. @param layers of the model */
  stages?(layers: number): Stage[];
  /** As many neighbouring layers share their weights. */
  share?: number;
  /** Left out: it is not trained. */
  training?: { method?: string; distil?: number };
  /** In one shot, when it has been trained. */
  last?: Stage[];
  /** The format that it runs in. */
  weights: WeightFormatId;
}

const rtn = (bits: number): Stage => ({ type: "quantize", method: "rtn", options: { bits, groupSize: 32 } });
const prune = (pattern: object | number): Stage =>
  ({ type: "prune", method: "sparsegpt", pattern }) as RecipeInput["stages"][number];
const twoOfFour = { type: "nm", keep: 2, group: 4 };
const lowRank = (keepRatio: number): Stage => ({ type: "lowRank", method: "svdllm", keepRatio });
const keepLayers = (share: number) => (layers: number) => [
  {
    type: "dropLayers" as const,
    method: "influence",
    count: Math.min(layers - 1, Math.max(1, Math.round(layers * (1 - share)))),
  } as Stage,
];

const quantised = (bits: number, weights: WeightFormatId): Scheme => ({ stages: () => [rtn(bits)], weights });
const sparse = (pattern: object | number): Scheme => ({
  stages: () => [prune(pattern)],
  training: { method: "fixed-mask" },
  weights: "bf16",
});
const distilled = (share: number): Scheme => ({
  stages: keepLayers(share),
  training: { distil: 0.5 },
  weights: "bf16",
});
const shared = (share: number): Scheme => ({ share, training: {}, weights: "bf16" });
const factored = (keepRatio: number): Scheme => ({
  stages: () => [lowRank(keepRatio)],
  training: {},
  weights: "bf16",
});

/** The five, each at several strengths; the last one is what combinations take unless they say otherwise. */
export const schemes: Readonly<Record<string, Readonly<Record<string, Scheme>>>> = {
  quantisation: { "8 bits": quantised(8, "q8"), "4 bits": quantised(4, "q4") },
  sparsification: { "2-4": sparse(twoOfFour), "75 percent": sparse(0.75) },
  distillation: { "two thirds": distilled(2 / 3), half: distilled(0.5) },
  sharing: { pairs: shared(2), threes: shared(3) },
  "low rank": { "75 percent": factored(0.75), half: factored(0.5) },
};

const half = keepLayers(0.5);

/** Every two of them. What this program refuses is part of the result. */
export const combinations: Readonly<Record<string, Scheme>> = {
  "quantisation + sparsification": { ...sparse(twoOfFour), last: [rtn(4)], weights: "q4" },
  "quantisation + distillation": { ...distilled(0.5), last: [rtn(4)], weights: "q4" },
  "quantisation + sharing": { ...shared(2), last: [rtn(4)], weights: "q4" },
  "quantisation + low rank": { ...factored(0.5), last: [rtn(4)], weights: "q4" },
  "sparsification + distillation": {
    stages: (layers) => [...half(layers), prune(twoOfFour)],
    training: { method: "fixed-mask", distil: 0.5 },
    weights: "bf16",
  },
  "sparsification + sharing": { ...shared(2), last: [prune(twoOfFour)] },
  // Half of the numbers in the pair, half in what it leaves.
  "sparsification + low rank": {
    stages: () => [
      {
        type: "lowRank",
        method: "svdllm",
        keepRatio: 0.25,
        residual: { method: "magnitude", pattern: { type: "unstructured", sparsity: 0.75 } },
      },
    ],
    training: { method: "fixed-mask" },
    weights: "bf16",
  },
  "distillation + sharing": { ...shared(2), training: { distil: 0.5 } },
  "distillation + low rank": {
    stages: (layers) => [...half(layers), lowRank(0.5)],
    training: { distil: 0.5 },
    weights: "bf16",
  },
  "sharing + low rank": { ...shared(2), last: [lowRank(0.5)] },
};
