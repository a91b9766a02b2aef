import type { JobOptions } from "../core/index.js";
import type { ProductCosts } from "../kernels/index.js";
import type { WeightFormatId } from "../pack/index.js";
import type { ExpertRanks } from "./expertRanks/ranks.js";
import type { OffloadedFile } from "./offload/description.js";
import type { OffloadOptions } from "./offload/options.js";
import type { Predictors } from "./offload/predictors.js";
import type { Structure } from "./structure.js";
import type { ActivationThresholds } from "./types.js";

/** How the weights of a model are packed. */
export interface LoadModelOptions extends JobOptions {
  /** Format of every matrix that tokens are multiplied with. */
  weights: WeightFormatId;
  /**
   * How matrices are laid out. Default "auto": what this machine multiplies fastest, by a short measurement that is made
   * when a matrix with zeros is met.
   */
  structure?: Structure;
  /** Stands in for the measurement. */
  costs?: ProductCosts;
  /** What passes run with that bring no thresholds of their own; see `Model.thresholds`. */
  thresholds?: ActivationThresholds;
  /** Ranks that hold all experts but the first share, which alone are loaded here. They must outlive the model. */
  expertRanks?: ExpertRanks;
  /**
   * Bundles that the weights of MLPs are read from as they are needed, and how. The file and the checkpoint must outlive the model.
   */
  offload?: { readonly file: OffloadedFile; readonly options: OffloadOptions; readonly predictors?: Predictors };
}
