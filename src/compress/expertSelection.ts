import { UsageError } from "../core/index.js";

/** What the tokens of a text did to the experts of one layer: one entry of each for every expert. */
export interface ExpertStatistics {
  /** Tokens that came through the layer. */
  readonly tokens: number;
  /** Tokens that were sent to each expert. */
  readonly counts: Float64Array;
  /** Sum of the weights that its outputs had. */
  readonly weights: Float64Array;
  /** Sum of weight × L2 norm of the output; undefined where outputs were not looked at. */
  readonly saliencies?: Float64Array;
  /** f64 [experts, experts]: sums of products of router logits; undefined where logits were not looked at. */
  readonly logitProducts?: Float64Array;
}

/** How much it would cost to leave out an expert. */
export interface ExpertMethod {
  readonly id: string;
  readonly title: string;
  readonly paper: string;
  /** Whether it looks at what experts give. */
  readonly needsOutputs: boolean;
  /** The larger, the better to keep. */
  score(statistics: ExpertStatistics, expert: number): number;
}

/** Every way of choosing experts to leave out. */
export const expertMethods: Readonly<Record<string, ExpertMethod>> = Object.fromEntries(
  (
    [
      {
        id: "reap",
        title: "mean of router weight × norm of the output, over the tokens of the expert",
        paper: "Lasby et al. 2025, arXiv:2510.13999",
        needsOutputs: true,
        score: ({ counts, saliencies }, e) => (counts[e] === 0 ? 0 : saliencies![e] / counts[e]),
      },
      {
        id: "frequency",
        title: "tokens that were sent to the expert",
        paper: "Muzio et al. 2024, arXiv:2404.05089",
        needsOutputs: false,
        score: ({ counts }, e) => counts[e],
      },
      {
        id: "routerWeight",
        title: "sum of the weights that the router gave the expert",
        paper: "Muzio et al. 2024, arXiv:2404.05089",
        needsOutputs: false,
        score: ({ weights }, e) => weights[e],
      },
    ] satisfies ExpertMethod[]
  ).map((method) => [method.id, method]),
);

/**
 * The experts to keep, ascending: all but the `remove` of lowest score, of equal scores the first. Where experts are chosen in
 * groups as many are removed of each.
 * @throws UsageError when too few would be left, or they do not divide into the groups
 */
export function keptExperts(
  scores: readonly number[],
  remove: number,
  { perToken, groups = 1 }: { perToken: number; groups?: number },
): number[] {
  const left = scores.length - remove;
  if (!Number.isSafeInteger(remove) || remove < 1 || left < perToken) {
    throw new UsageError(`${remove} of ${scores.length} experts cannot be removed: ${perToken} work for each token`);
  }
  if (remove % groups !== 0) {
    throw new UsageError(`experts are chosen in ${groups} groups; remove a multiple of ${groups}, not ${remove}`);
  }
  const size = scores.length / groups;
  const dropped = new Set<number>();
  for (let first = 0; first < scores.length; first += size) {
    const own = Array.from({ length: size }, (_, i) => first + i);
    for (const e of own.sort((a, b) => scores[a] - scores[b] || a - b).slice(0, remove / groups)) dropped.add(e);
  }
  return [...scores.keys()].filter((e) => !dropped.has(e));
}
