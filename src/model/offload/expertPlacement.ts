import { findStep, type LinearStep, type MixtureStep, type ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";
import { placedBytes } from "../../kernels/index.js";
import type { WeightFormatId } from "../../pack/index.js";
import { alignment } from "./placement.js";
import { align } from "./pools.js";

/** The matrix of a linear step of an expert within its bundle, packed as it is multiplied. */
export interface ExpertPart {
  /** Of the first expert; all have the same. */
  readonly step: LinearStep;
  /** Byte offset in the bundle, and bytes. */
  readonly within: number;
  readonly bytes: number;
}

/** The experts of a mixture: bundles of `bytes` that follow one another from `at` on. */
export interface ExpertStream {
  readonly layer: number;
  readonly mixture: MixtureStep;
  readonly at: number;
  readonly bytes: number;
  readonly parts: readonly ExpertPart[];
}

/**
 * Where the experts of a model lie, each as one read.
 * @throws UsageError for a model without a mixture
 */
export function placeExperts(
  spec: ModelSpec,
  weights: WeightFormatId,
): { streams: ExpertStream[]; byteLength: number } {
  let end = 0;
  const streams = spec.blocks.flatMap((block, layer): ExpertStream[] => {
    const mixture = findStep(block, "mixture");
    if (mixture === undefined) return [];
    let bytes = 0;
    const parts = mixture.experts[0].steps.flatMap((step): ExpertPart[] => {
      if (step.do !== "linear") return [];
      const maps = step.maps.map(({ map }) => map);
      const parts = maps.map(({ role, rows }) => ({ name: role, rows }));
      const size = placedBytes({ format: weights, cols: maps[0].cols, parts });
      bytes += align(size);
      return [{ step, within: bytes - align(size), bytes: size }];
    });
    const at = Math.ceil(end / alignment) * alignment;
    end = at + bytes * mixture.experts.length;
    return [{ layer, mixture, at, bytes, parts }];
  });
  if (streams.length === 0) throw new UsageError(`a ${spec.modelType} model has no experts to offload`);
  return { streams, byteLength: end };
}
