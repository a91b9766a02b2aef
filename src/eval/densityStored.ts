import { type Artifact, compressionOf } from "../io/index.js";

/** Share of the numbers of the source's projections that a compressed model stores; see `ResultRow.densityStored`. */
export function densityStored(artifact: Artifact): number {
  const { layers, sourceWeights } = compressionOf(artifact)!;
  const stored = layers.flatMap(({ matrices }) => Object.values(matrices).map(({ nonZeros }) => nonZeros));
  return stored.reduce((sum, count) => sum + count, 0) / sourceWeights;
}
