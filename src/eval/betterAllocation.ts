import type { ActivationSparsity } from "../io/index.js";
import type { Model } from "../model/index.js";
import {
  type Calibration,
  type CalibrationOptions,
  calibrateActivationSparsity,
  toThresholds,
} from "../pipeline/index.js";
import type { TokenizedText } from "../text/index.js";
import { evaluateQuality } from "./quality.js";

/** Calibration windows that the allocations are compared on, at most. */
const comparedWindows = 16;

/** How greedy and uniform allocation compare at one sparsity, and which was kept. */
export interface AllocationComparison {
  sparsity: number;
  kept: ActivationSparsity["allocation"];
  /** On the first windows of the calibration text, every token sparse. */
  perplexity: { greedy: number; uniform: number };
}

/**
 * Calibrates with greedy allocation, and keeps for each sparsity the uniform one where that predicts the calibration text
 * better: greedy allocation keeps the output of every block close to the dense one, which is not always the same thing.
 */
export async function calibrateBetterAllocation(
  model: Model,
  text: TokenizedText,
  options: Omit<CalibrationOptions, "allocation">,
): Promise<Calibration & { comparisons: AllocationComparison[] }> {
  const greedy = await calibrateActivationSparsity(model, text, { ...options, allocation: "greedy" });
  const uniform = greedy.uniform!;
  const variants = [greedy, uniform].flatMap(({ records }) =>
    records.map((record) => ({ name: record.allocation, model, thresholds: toThresholds(record) })),
  );
  const { signal, onProgress, window, calibrationWindows = comparedWindows } = options;
  const qualities = await evaluateQuality(variants, text, {
    window,
    maxWindows: Math.min(comparedWindows, calibrationWindows),
    signal,
    onProgress,
  });
  const levels = options.sparsities.length;
  const comparisons = options.sparsities.map((sparsity, i): AllocationComparison => {
    const perplexity = { greedy: qualities[i].perplexity, uniform: qualities[levels + i].perplexity };
    return { sparsity, kept: perplexity.uniform < perplexity.greedy ? "uniform" : "greedy", perplexity };
  });
  const chosen = comparisons.map(({ kept }) => (kept === "greedy" ? greedy : uniform));
  return {
    ...greedy,
    records: chosen.map(({ records }, i) => records[i]),
    realisedSparsities: chosen.map(({ realisedSparsities }, i) => realisedSparsities[i]),
    comparisons,
  };
}
