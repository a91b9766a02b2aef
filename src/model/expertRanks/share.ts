import { type BlockSpec, findStep, type ModelSpec } from "../../arch/index.js";
import { UsageError } from "../../core/index.js";

/** Which of the experts of a layer lie at one rank. */
export interface ExpertShare {
  first: number;
  count: number;
}

/** Rank r of R has experts r·E/R to (r + 1)·E/R, rounded down where E is no multiple of R. */
export function shareOf(experts: number, rank: number, ranks: number): ExpertShare {
  const first = Math.floor((rank * experts) / ranks);
  return { first, count: Math.floor(((rank + 1) * experts) / ranks) - first };
}

/** @throws UsageError for a model without experts, or with fewer than ranks */
export function checkRanks({ blocks }: ModelSpec, ranks: number): void {
  const counts = blocks.flatMap((block) => findStep(block, "mixture")?.experts.length ?? []);
  if (counts.length === 0) throw new UsageError("the model has no experts that could lie at several ranks");
  const fewest = Math.min(...counts);
  if (!Number.isSafeInteger(ranks) || ranks < 1 || ranks > fewest) {
    throw new UsageError(
      `${fewest} experts at ${ranks} ranks; take from 1 to ${fewest}, so that each has one at least`,
    );
  }
}

/** Blocks whose mixtures list the experts of one rank only. */
export const blocksOfRank = (blocks: readonly BlockSpec[], rank: number, ranks: number): BlockSpec[] =>
  blocks.map((block) => ({
    ...block,
    steps: block.steps.map((step) => {
      if (step.do !== "mixture") return step;
      const { first, count } = shareOf(step.experts.length, rank, ranks);
      return { ...step, experts: step.experts.slice(first, first + count) };
    }),
  }));
