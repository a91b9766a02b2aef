import type { Step } from "../arch/index.js";
import type { Activation } from "../kernels/index.js";
import type { Pass } from "./pass.js";
import { inputChoice } from "./thresholds.js";

const copy = { f: "scale", by: 1 } as const;

/** The inputs of a linear step as they count: those that do not are 0, from the first sparse row on. */
export function countedInputs(
  { backend, thresholds, sparseFromRow, scratch }: Pick<Pass, "backend" | "thresholds" | "sparseFromRow" | "scratch">,
  step: Step,
  x: Activation,
): Activation {
  const inputs = thresholds?.inputs;
  if (inputs === undefined || !thresholds?.linear.has(step) || sparseFromRow >= x.rows) return x;
  const counted = scratch(x.rows, x.cols);
  const of = (whole: Activation) => whole.rowRange(sparseFromRow, x.rows - sparseFromRow);
  if (sparseFromRow > 0) backend.map(counted.rowRange(0, sparseFromRow), x.rowRange(0, sparseFromRow), copy);
  backend.keepLargest(of(counted), of(x), inputChoice(inputs, x.cols));
  return counted;
}
