import { UsageError } from "../../core/index.js";

/** How tokens find those that they attend to. */
export type ClusterKind =
  /**
   * Each centroid of a head takes the tokens most like it, as many for every centroid, and these see each other (Routing
   * Transformer, arXiv:2003.05997). In a causal model who is taken depends on what comes later.
   */
  | "routing"
  /**
   * Each token belongs to the centroid most like it and sees the last members before it (causal), or those on both sides. This is
   * what routing is while tokens are written one by one; nothing depends on what comes later.
   */
  | "nearest"
  /**
   * Tokens are sorted by the cluster that a trained layer gives them and cut into blocks that see themselves (ClusterFormer,
   * ACL 2022.acl-long.170). In a causal model clusters do not move with the text, and a token sees the last members before it.
   */
  | "clusterformer";

/** Attention of a trained model that compares each token with about √n of n. */
export interface ClusterOptions {
  kind: ClusterKind;
  /** Clusters of a head; divides the window. Default: the largest divisor of the window that is not above its square root. */
  clusters?: number;
  /**
   * Heads that see their neighbourhood instead: as many tokens as a cluster has, on each side or before. Default: half of them;
   * with "clusterformer" none.
   */
  localHeads?: number;
  /** The first block whose heads form clusters; in those before it all are local. Default 0. */
  firstBlock?: number;
  /** In heads that form clusters keys are the queries, and a token sees itself only where it sees nothing else. Default false. */
  sharedKeys?: boolean;
  /** "clusterformer" that is not causal: blocks see those beside them as well, since equal blocks cut clusters. Default false. */
  neighbours?: boolean;
  /** Share of a centroid that a step keeps ("routing", "nearest"). Default 0.999. */
  decay?: number;
}

/** `ClusterOptions` for a window, with everything decided. */
export interface ClusterPlan extends Required<ClusterOptions> {
  /** Tokens of a cluster, of a block and of a neighbourhood. */
  size: number;
}

/** @throws UsageError for numbers that fit neither the window nor the heads */
export function clusterPlan(options: ClusterOptions, window: number, heads: number): ClusterPlan {
  const { kind } = options;
  const clusters = options.clusters ?? rootDivisor(window);
  if (!Number.isInteger(window / clusters) || clusters < 1) {
    throw new UsageError(
      `${clusters} clusters do not divide a window of ${window} tokens; give a divisor of ${window}`,
    );
  }
  const localHeads = options.localHeads ?? (kind === "clusterformer" ? 0 : Math.floor(heads / 2));
  if (!Number.isInteger(localHeads) || localHeads < 0 || localHeads > heads) {
    throw new UsageError(`${localHeads} local heads of ${heads}; give 0 to ${heads}`);
  }
  const { decay = 0.999 } = options;
  if (!(decay >= 0 && decay <= 1)) throw new UsageError(`a centroid cannot keep ${decay} of itself; give 0 to 1`);
  return {
    kind,
    clusters,
    size: window / clusters,
    localHeads,
    firstBlock: options.firstBlock ?? 0,
    sharedKeys: options.sharedKeys ?? false,
    neighbours: options.neighbours ?? false,
    decay,
  };
}

function rootDivisor(window: number): number {
  let clusters = Math.floor(Math.sqrt(window));
  while (window % clusters !== 0) clusters--;
  return clusters;
}

/** Whether centroids follow the tokens that belong to them, beside the gradient. */
export const hasMovingCentroids = ({ kind }: ClusterOptions): boolean => kind !== "clusterformer";

/** Array of a batch: the centroids of a block, f32 [heads that form clusters, clusters, width of a head], each of length 1. */
export const centroidsName = (block: number): string => `centroids.${block}`;
/** Measured: what came to each centroid of a block, f32 [heads, clusters, width]: the sum of unit queries and keys. */
export const memberSumsName = (block: number): string => `memberSums.${block}`;
/** Measured: how many these were, f32 [heads, clusters]. */
export const memberCountsName = (block: number): string => `memberCounts.${block}`;

/** Parameters of ClusterFormer's layer in a block: C [clusters, hiddenSize] and Wᶜ [hiddenSize, hiddenSize]. */
export const clusterWeightNames = (block: number) => ({
  centroids: `clusters.${block}.centroids`,
  projection: `clusters.${block}.projection`,
});
