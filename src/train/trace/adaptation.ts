import type { Traced } from "../engine/ops.js";
import type { TracedArrays } from "../engine/tracedObjective.js";

/** What an adapter does to a linear map beside its weights: to x [rows, cols] before it, to y [rows, out] behind it and its bias. */
export interface TracedAdaptation {
  inputs?(x: Traced, pass: AdaptedPass): Traced;
  /** @param x what the map was given, before `inputs` */
  outputs?(y: Traced, x: Traced, pass: AdaptedPass): Traced;
  /** Outputs are multiplied, so that they must be there by themselves. */
  rescales?: true;
}

/** What an adapter knows of a pass. */
export interface AdaptedPass {
  readonly weights: TracedArrays;
  /** Scalars that are added to the loss while it is trained. */
  readonly penalties: Traced[];
}

/** Beside what a model is told to do: not for callers of the package, whose declarations then need none of the engine. */
export interface AdaptedOptions {
  /** By the name of the map's weights. */
  adapted?: ReadonlyMap<string, TracedAdaptation>;
}
