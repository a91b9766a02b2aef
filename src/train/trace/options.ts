import type { ClusterOptions } from "../models/clusterOptions.js";
import type { Distillation } from "../models/distillation.js";
import type { Matching, Shown } from "../models/matchingOptions.js";
import type { RouterOptions } from "../models/routerOptions.js";

/** What a model does while it is trained beside what its description says. */
export interface PassOptions {
  /** How tokens find their experts. */
  router?: RouterOptions;
  /** Share of the largest inputs, by magnitude, that each linear map sees (Q-Sparse); all by default. */
  inputDensity?: number;
  /** Attention in which tokens see those of their cluster alone; all by default. */
  clusters?: ClusterOptions;
}

/** What a language model is trained on beside its text, and what it does beside its description. */
export interface TraceOptions extends PassOptions {
  /** Batches that hold a teacher's logits are learnt from both. */
  distillation?: Distillation;
  /** Batches that hold what a teacher's blocks have are learnt from, beside all else; through matrices that are trained too. */
  matching?: Matching;
  /** What the model shows of itself to one that learns from it. */
  shown?: Shown;
  /** Labels below 0 are not learnt: the loss is the mean over the others. */
  masked?: true;
  /**
   * The model classifies whole texts: batches hold one `label` for each sequence, and what `fillingOf` makes where texts are
   * filled up to a window.
   */
  classifies?: true;
}
