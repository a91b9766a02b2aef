import type { Step } from "../../arch/index.js";
import { loadChoice } from "./choice.js";
import { loadConvolution } from "./convolution.js";
import type { LoadedSmall, SmallWeights } from "./loaded.js";
import { loadMultiplicative } from "./multiplicative.js";

export { loadRows } from "./rows.js";

/** Loads a step whose weights are no linear steps'; this file is loaded with a model that has any. */
export async function loadSmall(
  step: Extract<Step, { do: "multiplicative" | "convolve" | "choose" }>,
  weights: SmallWeights,
): Promise<LoadedSmall> {
  switch (step.do) {
    case "multiplicative":
      return loadMultiplicative(step, weights);
    case "convolve":
      return loadConvolution(step, weights);
    case "choose":
      return loadChoice(step, weights);
  }
}
