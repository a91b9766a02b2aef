import { stat } from "node:fs/promises";
import { type Artifact, compressionOf, type LocalModelFiles } from "../io/index.js";

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
export function rareExperts(artifact: Artifact): RareExpert[] {
  const experts = new Map<string, number>();
  for (const { source, matrices } of compressionOf(artifact)!.layers) {
    for (const { expert, tokens, cols } of Object.values(matrices)) {
      if (tokens !== undefined && tokens < cols) experts.set(`${source}.${expert}`, tokens);
    }
  }
  return Array.from(experts, ([expert, tokens]) => ({ expert, tokens })).sort((a, b) => a.tokens - b.tokens);
}
