import type { ModelSpec } from "../arch/index.js";
import { UsageError } from "../core/index.js";
import type { Checkpoint } from "../io/index.js";
import {
  type OffloadedFile,
  type OffloadOptions,
  openOffloaded,
  type Predictors,
  readPredictors,
} from "../model/index.js";
import type { WeightFormatId } from "../pack/index.js";

/** The bundles of a model and how they are held. @throws UsageError for a model that has none, or other weights */
export async function openOffload(
  checkpoint: Checkpoint,
  spec: ModelSpec,
  options: OffloadOptions,
  weights: WeightFormatId | undefined,
): Promise<{ file: OffloadedFile; options: OffloadOptions; predictors?: Predictors }> {
  const file = await openOffloaded(checkpoint, spec);
  if (file === undefined) {
    throw new UsageError(
      `${checkpoint.location} holds no bundles to read while it runs; make them with rarefy offload`,
    );
  }
  if (weights !== undefined && weights !== file.shape.weights) {
    await file.source.close();
    throw new UsageError(`the bundles of ${checkpoint.location} are ${file.shape.weights}, not ${weights}`);
  }
  if (options.predict === undefined) return { file, options };
  try {
    if (file.shape.layout !== "neurons")
      throw new UsageError("neurons are predicted where they are offloaded by neurons");
    const predictors = await readPredictors(checkpoint, spec);
    if (predictors !== undefined) return { file, options, predictors };
    throw new UsageError(
      `${checkpoint.location} has no predictors; train them with rarefy predict, before or after rarefy offload`,
    );
  } catch (error) {
    await file.source.close();
    throw error;
  }
}
