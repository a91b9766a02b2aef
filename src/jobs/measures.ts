import { stat } from "node:fs/promises";
import type { Artifact, LocalModelFiles } from "../io/index.js";

/** Share of the numbers of the source's projections that a compressed model stores; see `ResultRow.densityStored`. */
export function densityStored({ compression }: Artifact): number {
  const { layers, sourceWeights } = compression!;
  const stored = layers.flatMap(({ matrices }) => Object.values(matrices).map(({ nonZeros }) => nonZeros));
  return stored.reduce((sum, count) => sum + count, 0) / sourceWeights;
}

/** Bytes of the files that hold weights. */
export async function weightBytesOf(files: LocalModelFiles): Promise<number> {
  let total = 0;
  for (const name of await files.names()) {
    const path = files.pathOf(name);
    if (path !== undefined && /\.(safetensors|gguf)$/.test(name)) total += (await stat(path)).size;
  }
  return total;
}

/** An expert that calibration saw little of. */
export interface RareExpert {
  /** "layer.expert", of the source. */
  expert: string;
  tokens: number;
}

/** Experts that saw fewer calibration tokens than their matrices have inputs, too few to know how these go together; rarest first. */
export function rareExperts({ compression }: Artifact): RareExpert[] {
  const experts = new Map<string, number>();
  for (const { source, matrices } of compression!.layers) {
    for (const [key, { tokens, cols }] of Object.entries(matrices)) {
      if (tokens !== undefined && tokens < cols) experts.set(`${source}.${key.split(".")[1]}`, tokens);
    }
  }
  return Array.from(experts, ([expert, tokens]) => ({ expert, tokens })).sort((a, b) => a.tokens - b.tokens);
}
