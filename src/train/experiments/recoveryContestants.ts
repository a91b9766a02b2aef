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
 * Rates and decays are those of a sweep on tiny-6m at 4.2 M tokens (docs/experiments.md), stretched to the run's length. Decays λ are to
 * be read against the gradient of one weight, whose root mean square is 2·10⁻⁴ at 16,384 tokens: SR-STE and AST pull with λ·|w|, about
 * as much as it; CAST's L1 with ten times as much, so that the pull alone decides and a pruned weight loses the learning rate at every
 * step, which must sum up to more than a weight. AST and CAST divide by the mean square of mean gradients, a fifth of Adam's divisor
 * or so, hence a quarter of the learning rate. The dense model is at the end of a schedule already, and any higher rate costs it more.
 */
export const contestants: Readonly<Record<string, Contestant>> = {
  dense: { title: "dense, trained on", pruned: false, training: { method: "dense", options: {}, rate: 1 / 7 } },
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
    training: { method: "sr-ste", options: { decay: 2e-3 } },
    published: { method: "SR-STE", tokens: "10 B", perplexity: 5.74 },
  },
  ast: { title: "AST", pruned: false, training: { method: "ast", options: { decay: 3e-3 }, rate: 0.25 } },
  cast: {
    title: "CAST",
    pruned: false,
    training: { method: "cast", options: { decay: 2e-3 }, rate: 2 / 7 },
    published: { method: "CAST", tokens: "7.5 B", perplexity: 5.58 },
  },
};
