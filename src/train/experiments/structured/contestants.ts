import type { trainMethods } from "../../methods/index.js";

/** What is made smaller without training: a stage of masks. */
export interface OneShot {
  title: string;
  stage: Readonly<Record<string, unknown>>;
}

export const oneShots: Readonly<Record<string, OneShot>> = {
  magnitude: { title: "magnitude", stage: { method: "magnitude" } },
  searched: { title: "Fisher, searched", stage: { method: "fisher", rearrange: false, tune: false } },
  rearranged: { title: "Fisher, rearranged", stage: { method: "fisher", tune: false } },
  tuned: { title: "Fisher, tuned", stage: { method: "fisher" } },
};

/** What is trained. */
export interface Trained {
  title: string;
  /** Begins with the weights that Fisher's masks left. */
  masked?: true;
  method: keyof typeof trainMethods;
  /** @param share of the multiply-adds that stays @param tokens of a text */
  options(share: number, tokens: number): object;
  /** One run gives all shares, and has this many times the steps. */
  together?: { steps: number; options(shares: readonly number[]): object };
  /** How the trained model is cut. */
  cut: "zeros" | "first";
}

export const trainedOnes: Readonly<Record<string, Trained>> = {
  masked: {
    title: "Fisher, then trained",
    masked: true,
    method: "fixed-mask",
    options: () => ({ mask: "zeros" }),
    cut: "zeros",
  },
  l0: {
    title: "L0",
    method: "l0",
    options: (share, tokens) => ({ sparsity: 1 - share, tokens }),
    cut: "zeros",
  },
  cofi: {
    title: "CoFi",
    method: "cofi",
    options: (share, tokens) => ({ sparsity: 1 - share, tokens }),
    cut: "zeros",
  },
  dynabert: {
    title: "DynaBERT",
    method: "dynabert",
    options: () => ({}),
    together: { steps: 2, options: (shares) => ({ widths: [1, ...shares] }) },
    cut: "first",
  },
};
