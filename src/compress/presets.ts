import { UsageError } from "../core/index.js";
import { parseRecipe, type Recipe, type RecipeInput } from "./recipe.js";

type Stage = RecipeInput["stages"][number];
type PatternInput = (Stage & { type: "prune" })["pattern"];

const prune = (method: string, pattern: PatternInput): Stage => ({ type: "prune", method, pattern });
/** Codes and scales that the packed formats q8 and q4 hold as they are. */
const packable = (method: string, bits: number): Stage => ({
  type: "quantize",
  method,
  options: { bits, groupSize: 32, scheme: "symmetric", scaleType: "bf16" },
});
/** Inputs made by a norm, whose weight takes the factors up. */
const afterNorm = ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"].map((name) => `**.${name}.weight`);

/** Recipes by name. */
export const presets: Readonly<Record<string, { title: string; stages: readonly Stage[] }>> = {
  "sparsegpt-50": { title: "SparseGPT: half of all weights", stages: [prune("sparsegpt", 0.5)] },
  "sparsegpt-2:4": { title: "SparseGPT: 2 of every 4 weights stay", stages: [prune("sparsegpt", "2:4")] },
  "wanda-50": { title: "Wanda: half of all weights, quickly", stages: [prune("wanda", 0.5)] },
  "wanda-2:4": { title: "Wanda: 2 of every 4 weights stay, quickly", stages: [prune("wanda", "2:4")] },
  "magnitude-50": { title: "Magnitude: half of all weights, no calibration", stages: [prune("magnitude", 0.5)] },
  "wrp-2:4": { title: "WRP: 2 of every 4, and the most missed of the others", stages: [prune("wrp", "2:4")] },
  "slim-25": {
    title: "A quarter of the neurons and heads removed: smaller and faster in every format",
    stages: [
      prune("sparsegpt", { type: "heads", sparsity: 0.25 }),
      prune("sparsegpt", { type: "neurons", sparsity: 0.25 }),
    ],
  },
  "llm-pruner-25": {
    title: "LLM-Pruner: a quarter of the neurons and heads, chosen by gradients; for training afterwards",
    stages: [
      prune("llm-pruner", { type: "heads", sparsity: 0.25 }),
      prune("llm-pruner", { type: "neurons", sparsity: 0.25 }),
    ],
  },
  "rtn-8": { title: "Round to nearest: 8 bits, no calibration", stages: [packable("rtn", 8)] },
  "gptq-4": { title: "GPTQ: 4 bits", stages: [packable("gptq", 4)] },
  "awq-4": { title: "AWQ: 4 bits", stages: [packable("awq", 4)] },
  "smoothquant-8": {
    title: "SmoothQuant: weights and inputs in 8 bits",
    stages: [
      { type: "scale", method: "smoothquant", targets: afterNorm },
      { type: "quantize", method: "vectorwise" },
    ],
  },
  "sparsegpt-2:4-q8": {
    title: "2 of every 4 weights stay, in 8 bits",
    stages: [prune("sparsegpt", "2:4"), packable("gptq", 8)],
  },
  "svdllm-80": {
    title: "SVD-LLM: factors with 80 % of the numbers",
    stages: [{ type: "lowRank", method: "svdllm", keepRatio: 0.8, shareWithinBlock: true }],
  },
};

/** The recipe of a preset, with defaults. @throws UsageError for an unknown name */
export function presetRecipe(name: string): Recipe {
  if (!Object.hasOwn(presets, name)) {
    throw new UsageError(`there is no preset "${name}"; there are ${Object.keys(presets).join(", ")}`);
  }
  return parseRecipe({ version: 1, ...presets[name] }, `preset ${name}`);
}
