import type { Random } from "../../core/index.js";
import type { BatchControl } from "../objective.js";
import type { FloatArray, ParameterInfo } from "../values.js";
import {
  type ClusterPlan,
  centroidsName,
  clusterWeightNames,
  hasMovingCentroids,
  memberCountsName,
  memberSumsName,
} from "./clusterOptions.js";

/** Sizes of the model whose attention forms clusters. */
export interface ClusteredSizes {
  blocks: number;
  hiddenSize: number;
  heads: number;
  /** Width of a head. */
  width: number;
}

/** What ClusterFormer's layers learn, block by block; nothing for the other kinds, whose centroids follow the tokens. */
export function clusterParameters(plan: ClusterPlan, { blocks, hiddenSize }: ClusteredSizes): ParameterInfo[] {
  if (hasMovingCentroids(plan)) return [];
  return clusteredBlocks(plan, blocks).flatMap((block) => {
    const { centroids, projection } = clusterWeightNames(block);
    return [
      { name: centroids, shape: [plan.clusters, hiddenSize], layer: "", role: "dense" as const },
      { name: projection, shape: [hiddenSize, hiddenSize], layer: "", role: "dense" as const },
    ];
  });
}

/** Centroids normal, of the length of a token that a norm has passed; the map uniform in ±1/√in. */
export function initialClusters(parameters: readonly ParameterInfo[], random: Random): Map<string, FloatArray> {
  return new Map(
    parameters.map(({ name, shape: [rows, columns] }) => {
      const bound = 1 / Math.sqrt(columns);
      const draw = name.endsWith("centroids") ? () => random.normal() : () => bound * (2 * random.uniform() - 1);
      return [name, Float32Array.from({ length: rows * columns }, draw)];
    }),
  );
}

/**
 * The centroids of every block and head, on the unit sphere: each moves toward the mean of the unit queries and keys that are
 * nearest to it, μ ← unit(λμ + (1 − λ)·mean). λ rises from a tenth to `decay`, as (1 + t)/(10 + t) after t steps, so that a run of some
 * hundred steps does not end with the random directions that it began with. One that nothing came to stays where it is.
 */
export function centroidControl(
  plan: ClusterPlan,
  { blocks, heads, width }: ClusteredSizes,
  random: Random,
): BatchControl {
  const { clusters, decay, localHeads } = plan;
  const own = heads - localHeads;
  const moving = hasMovingCentroids(plan) && own > 0 ? clusteredBlocks(plan, blocks) : [];
  const centroids = new Map(
    moving.map(
      (block) => [block, Float32Array.from({ length: own * clusters * width }, () => random.normal())] as const,
    ),
  );
  for (const values of centroids.values()) {
    for (let at = 0; at < values.length; at += width) toUnitLength(values.subarray(at, at + width));
  }
  const state = {
    steps: 0,
    ...Object.fromEntries(Array.from(centroids, ([block, values]) => [centroidsName(block), values])),
  };
  return {
    state,
    arrays: () =>
      Object.fromEntries(
        Array.from(centroids, ([block, values]) => [centroidsName(block), { shape: [own, clusters, width], values }]),
      ),
    observe(measured) {
      const kept = Math.min(decay, (1 + state.steps) / (10 + state.steps));
      for (const [block, values] of centroids) {
        const sums = measured.get(memberSumsName(block))!;
        for (const [c, count] of measured.get(memberCountsName(block))!.entries()) {
          if (count === 0) continue;
          const centroid = values.subarray(c * width, (c + 1) * width);
          for (let i = 0; i < width; i++) centroid[i] = kept * centroid[i] + ((1 - kept) * sums[c * width + i]) / count;
          toUnitLength(centroid);
        }
      }
      state.steps++;
    },
  };
}

const clusteredBlocks = ({ firstBlock }: ClusterPlan, blocks: number): number[] =>
  Array.from({ length: blocks }, (_, block) => block).slice(firstBlock);

function toUnitLength(vector: FloatArray): void {
  const length = Math.hypot(...vector);
  // Opposite members may cancel; nothing has a direction then.
  if (length > 0) for (let i = 0; i < vector.length; i++) vector[i] /= length;
}
