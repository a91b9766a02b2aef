import type { trainMethods } from "../methods/index.js";

/** One way to 2:4. */
export interface Contestant {
  title: string;
  /** Begins with the weights that SparseGPT left, and not with the dense ones. */
  pruned: boolean;
  /** Absent: nothing is trained. */
  training?: {
    method: keyof typeof trainMethods;
    options: object;
    /** Of the protocol's learning rate. Default 1. */
    rate?: number;
  };
  /** What the CAST paper has for LLaMA2-7B. */
  published?: { method: string; tokens: string; perplexity: number };
}

/** Wikitext perplexity of LLaMA2-7B, dense (CAST, arXiv:2509.25996). */
export const publishedDense = 5.12;

/**
 * Decays λ are chosen against the gradient of one weight, whose root mean square is 3·10⁻⁴ for tiny-6m at 8192 tokens. SR-STE and
 * AST pull with λ·|w|, a thirtieth of it, as with the papers' own values. CAST's L1 must bring a weight of 0.05 to 0 within the run:
 * its drift is about 0.3·steps·rate·λ/RMS, which asks for λ near a third of the gradient. AST and CAST divide by the mean square of
 * mean gradients, a fifth of Adam's divisor or so, and have a smaller learning rate for it.
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
  ast: { title: "AST", pruned: false, training: { method: "ast", options: { decay: 2e-4 }, rate: 0.4 } },
  cast: {
    title: "CAST",
    pruned: false,
    training: { method: "cast", options: { decay: 1e-4 }, rate: 0.4 },
    published: { method: "CAST", tokens: "7.5 B", perplexity: 5.58 },
  },
};
