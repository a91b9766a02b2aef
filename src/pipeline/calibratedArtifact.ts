import { type Artifact, artifactVersion } from "../io/index.js";
import type { Calibration } from "./calibrate.js";
import type { OpenedModel } from "./openModel.js";

/** What is known beside the thresholds. */
export interface CalibratedExtras {
  /** SHA-256 of the model's config.json as it is stored. */
  configSha256: string;
  /** What the result is to see and hold; exits that were trained stay in any case. */
  inference?: Artifact["inference"];
  /** Rows of what was measured. */
  results?: readonly object[];
}

/**
 * The rarefy.json of a model with the thresholds that calibration has found: it lies beside the same weights, so all that its own
 * rarefy.json says of them stays. Rows that were measured without thresholds do not.
 * @param calibration of one sparsity, of this model
 */
export function calibratedArtifact(
  { artifact, model, location }: Pick<OpenedModel, "artifact" | "model" | "location">,
  { records, sites }: Pick<Calibration, "records" | "sites">,
  { configSha256, inference: chosen, results }: CalibratedExtras,
): Artifact {
  const { inference: before, results: _dense, ...kept } = artifact ?? {};
  // Exits were trained on these weights and hold whatever inputs are skipped.
  const inference = before?.exits === undefined ? chosen : { ...chosen, exits: before.exits };
  return {
    ...kept,
    rarefy: artifactVersion,
    weights: model.weights,
    activationSparsity: records[0],
    ...(inference && { inference }),
    activations: sites.map((site) => ({ ...site })),
    ...(results && { results: results.map((row) => ({ ...row })) }),
    source: { location, configSha256 },
  };
}
