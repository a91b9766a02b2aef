import type { CompressRequest } from "../protocol.js";

/** What the form says of a method. */
export interface Choices {
  pattern: string;
  /** Share of zeros, or of inputs that are skipped. */
  share: number;
  bits: number;
  recipe: string;
}

/** A way to compress a model that the page offers. */
interface OfferedMethod {
  title: string;
  note: string;
  /** Which choices it has. */
  fields: readonly (keyof Choices)[];
  /** Whether it can do without a text; it then says nothing of the errors it makes. */
  withoutText?: true;
  work(choices: Choices): CompressRequest["work"];
  /** Of the result, behind the model's name. */
  suffix(choices: Choices): string;
}

/** Patterns of zeros; those without a number of their own take the share. */
export const patterns: Readonly<Record<string, string>> = {
  unstructured: "anywhere",
  "2:4": "2 of every 4 stay",
  "4:8": "4 of every 8 stay",
  neurons: "whole neurons",
  heads: "whole attention heads",
};

export const takesShare = (pattern: string): boolean => !/^\d/.test(pattern);

const recipe = (...stages: object[]): CompressRequest["work"] => ({
  recipe: JSON.stringify({ version: 1, stages }),
});

const pruning = (method: string, title: string, note: string): OfferedMethod => ({
  title,
  note,
  fields: ["pattern", "share"],
  work({ pattern, share }) {
    const sparsity = share / 100;
    const zeros = pattern === "unstructured" ? sparsity : takesShare(pattern) ? { type: pattern, sparsity } : pattern;
    return recipe({ type: "prune", method, pattern: zeros });
  },
  suffix: ({ pattern, share }) =>
    pattern === "unstructured"
      ? `${method}-${share}`
      : takesShare(pattern)
        ? `${method}-${pattern}-${share}`
        : `${method}-${pattern.replace(":", "of")}`,
});

/** Codes and scales that the packed formats hold as they are. */
const rounding = (method: string, title: string, note: string): OfferedMethod => ({
  title,
  note,
  fields: ["bits"],
  work: ({ bits }) =>
    recipe({ type: "quantize", method, options: { bits, groupSize: 32, scheme: "symmetric", scaleType: "bf16" } }),
  suffix: ({ bits }) => `${method}-${bits}`,
});

export const methods: Readonly<Record<string, OfferedMethod>> = {
  wanda: pruning("wanda", "Wanda pruning", "Zeros where weight times input is small. Quick, and good at half."),
  sparsegpt: pruning(
    "sparsegpt",
    "SparseGPT pruning",
    "Zeros, and the weights that stay make up for them. Slower and better, most of all at 2:4.",
  ),
  magnitude: {
    ...pruning(
      "magnitude",
      "Magnitude pruning",
      "Zeros where weights are small; looks at no text. The simplest, and the worst.",
    ),
    withoutText: true,
  },
  gptq: rounding("gptq", "GPTQ quantisation", "Codes of few bits, each rounding made up for by the weights after it."),
  rtn: {
    ...rounding(
      "rtn",
      "Round to nearest",
      "Codes of few bits, rounded one by one; looks at no text. Enough for 8 bits.",
    ),
    withoutText: true,
  },
  teal: {
    title: "TEAL thresholds",
    note: "Leaves the weights as they are and finds thresholds, so that inputs near zero are skipped while the model runs.",
    fields: ["share"],
    work: ({ share }) => ({ skip: share / 100 }),
    suffix: ({ share }) => `teal-${share}`,
  },
  recipe: {
    title: "A recipe of your own",
    note: "Any stages that rarefy compress takes, one after another on every block.",
    fields: ["recipe"],
    withoutText: true,
    work: ({ recipe: text }) => ({ recipe: text }),
    suffix: () => "recipe",
  },
};

export const exampleRecipe = `version: 1
stages:
  - { type: prune, method: sparsegpt, pattern: "2:4" }
  - { type: quantize, method: rtn, options: { bits: 8, groupSize: 32, scheme: symmetric, scaleType: bf16 } }
`;
