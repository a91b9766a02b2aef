import { type BlockSpec, findStep, type ModelSpec } from "../../arch/index.js";
import { multiply, type Traced } from "../engine/ops.js";
import { relationDivergence, stateDifference } from "../models/matching.js";
import { type FeatureKind, featureName, type Matching, projectionName } from "../models/matchingOptions.js";
import type { BlockPass, TracedPass } from "./pass.js";

/** What a block has left in its buffers, f32 [rows, width]. */
export function featureOf(kind: FeatureKind, block: BlockSpec, buffers: BlockPass["buffers"]): Traced {
  return buffers.get(kind === "stream" ? "x" : findStep(block, "attend")![kind])!;
}

/**
 * What is added to the loss for how far a student's blocks are from its teacher's: nothing for a batch in which there is no teacher.
 * @param blocks buffers behind every block of the student
 */
export function matchedTerms(
  { hidden, relations, relationHeads, relative, layers }: Matching,
  spec: ModelSpec,
  blocks: readonly BlockPass["buffers"][],
  pass: TracedPass,
): Traced[] {
  const { batch, weights, sequences } = pass;
  return layers.flatMap((pair) => {
    const [own, other] = pair;
    const block = spec.blocks[own];
    const of = (kind: FeatureKind, distance: (student: Traced, teacher: Traced) => Traced, weight: number) => {
      const teacher = batch[featureName(kind, other)];
      if (teacher === undefined || weight === 0) return [];
      return [multiply(distance(featureOf(kind, block, blocks[own]), teacher), weight / layers.length)];
    };
    const states = of("stream", (x, y) => stateDifference(x, y, weights[projectionName(pair)], relative), hidden);
    const mask = () => pass.mask(findStep(block, "attend")!.sight);
    const related = (["q", "k", "v"] as const).flatMap((kind) =>
      of(kind, (x, y) => relationDivergence(x, y, { sequences, heads: relationHeads, mask: mask() }), relations / 3),
    );
    return [...states, ...related];
  });
}
