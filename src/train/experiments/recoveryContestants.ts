import type { trainMethods } from "../methods/index.js";

/** One way to 2:4. */
export interface Contestant {
  title: string;
  /** Begins with the weights that SparseGPT left, and not with the dense ones. */
  pruned: boolean;
  /** Absent: nothing is trained. */
  training?: { method: keyof typeof trainMethods; options: object };
  /** What the CAST paper has for LLaMA2-7B. */
  published?: { method: string; tokens: string; perplexity: number };
}

/** Wikitext perplexity of LLaMA2-7B, dense (CAST, arXiv:2509.25996). */
export const publishedDense = 5.12;

/**
 * Decays λ stand to the gradient of one weight as those of the papers do: about 1/30 of its root mean square, which a
 * model of 6 million parameters has near 10⁻⁴.
 */
export const contestants: Readonly<Record<string, Contestant>> = {
  dense: { title: "dense, trained on", pruned: false, training: { method: "dense", options: {} } },
  "one-shot": {
    title: "SparseGPT, one shot",
    pruned: true,
    published: { method: "Wanda, one shot", tokens: "–", perplexity: 11.29 },
  },
  "fixed-mask": {
    title: "SparseGPT, mask kept",
    pruned: true,
    training: { method: "fixed-mask", options: {} },
    published: { method: "naive retraining", tokens: "10 B", perplexity: 5.78 },
  },
  "sr-ste": {
    title: "SR-STE",
    pruned: false,
    training: { method: "sr-ste", options: { decay: 2e-4 } },
    published: { method: "SR-STE", tokens: "10 B", perplexity: 5.74 },
  },
  "sr-ste-pruned": {
    title: "SparseGPT, then SR-STE",
    pruned: true,
    training: { method: "sr-ste", options: { decay: 2e-4 } },
  },
  ast: { title: "AST", pruned: false, training: { method: "ast", options: { decay: 2e-4 } } },
  cast: {
    title: "CAST",
    pruned: false,
    training: { method: "cast", options: { decay: 5e-6 } },
    published: { method: "CAST", tokens: "7.5 B", perplexity: 5.58 },
  },
};
